"""What Vespa, and stored documents, make of a new package; a new bundle beside the old one."""
