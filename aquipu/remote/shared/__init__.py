"""A store that several processes have open: the first one writes it and serves it to the others."""
