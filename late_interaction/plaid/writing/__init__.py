"""The one writer: pending changes, codebook training, segments, commits."""
