"""Aquipu in other people's frameworks: one module and one extra for each framework."""
