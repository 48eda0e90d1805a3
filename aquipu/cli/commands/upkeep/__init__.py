"""The commands that care for a store as a whole."""
