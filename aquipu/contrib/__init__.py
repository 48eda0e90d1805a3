"""aquipu at home in other people's frameworks: one room each, and each framework an extra."""
