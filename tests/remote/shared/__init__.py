"""Tests of a store that several processes have open at once."""
