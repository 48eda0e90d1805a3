"""The tests of aquipu; those of a room stand in the file of its name."""
