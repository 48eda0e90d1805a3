"""Tests of aquipu/local/."""
