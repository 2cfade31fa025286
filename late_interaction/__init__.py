"""The foundation: bundles, tokenizing, encoding, MaxSim, codecs, metadata, filters and the local engine."""
