"""The demo model: pictures of birds drawn from parts, with a known truth."""
