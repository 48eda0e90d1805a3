"""Tests of the rooms of contrib, each named by its room, and of the example services."""
