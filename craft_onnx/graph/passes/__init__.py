"""Passes: each takes a model and returns another that computes the same."""
