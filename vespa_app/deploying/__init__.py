"""A package to docker, a config server or Vespa Cloud, and waiting until it serves."""
