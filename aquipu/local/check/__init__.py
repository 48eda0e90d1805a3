"""A store at rest: inspected, verified, repaired."""
