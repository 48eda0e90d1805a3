"""Tests of aquipu/local/check/."""
