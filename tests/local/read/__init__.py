"""Tests of aquipu/local/read/."""
