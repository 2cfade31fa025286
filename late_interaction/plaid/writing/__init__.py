"""The writer: pending changes, codebook training, segments, commits."""
