"""Layer-wise relevance propagation: rules and composites on the reverse pass."""
