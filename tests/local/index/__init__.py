"""Tests of aquipu/local/index/."""
