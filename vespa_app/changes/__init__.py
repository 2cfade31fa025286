"""What Vespa will do with a new package; a new bundle beside the old one."""
