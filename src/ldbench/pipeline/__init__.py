"""From a config to artifacts and records: the one place where configs become objects."""
