"""What `evaluate` measures besides its client: metrics by name, TREC files, baselines, significance, trade-offs."""
