"""Tests of aquipu/examples/."""
