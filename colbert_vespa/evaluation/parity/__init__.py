"""Whether production answers as the laptop did: stages compared in pairs, and where a difference comes from."""
