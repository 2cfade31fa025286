"""Watching a Vespa application or a local index: health, room for more, latency, canaries, drift; a table, metrics, alerts."""
