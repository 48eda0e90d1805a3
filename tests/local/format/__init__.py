"""Tests of aquipu/local/format/."""
