"""Runs graphs: sessions and providers, batches, pictures and crops, the bundle on disk."""
