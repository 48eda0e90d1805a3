"""Tests of aquipu/local/write/."""
