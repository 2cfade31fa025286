"""Encode texts as passages with token vectors, in this process or in worker processes."""
