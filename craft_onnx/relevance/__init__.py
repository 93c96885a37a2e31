"""Concept Relevance Propagation: which channels and concepts a prediction goes through, and what each stands for."""
