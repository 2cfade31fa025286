"""PLAID's stages: candidates by centroids, decoded MaxSim, effort for a recall goal."""
