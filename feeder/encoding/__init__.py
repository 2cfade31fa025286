"""Texts to passages with token vectors: here, or in worker processes."""
