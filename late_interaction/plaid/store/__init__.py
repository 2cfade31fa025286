"""Stored versions: segments, columns, codecs, history, the writer's lock."""
