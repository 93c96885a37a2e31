"""How much every pixel matters for a target: a logit, a combination of logits, a channel, a concept."""
