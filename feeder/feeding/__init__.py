"""One feed: sources surveyed, documents encoded and handed to a target, and the outcome of each."""
