"""Tests of aquipu/commit/."""
