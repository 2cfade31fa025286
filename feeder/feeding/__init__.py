"""One feed: sources surveyed, documents encoded and handed to a target, and what became of each."""
