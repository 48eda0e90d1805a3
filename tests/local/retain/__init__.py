"""Tests of aquipu/local/retain/."""
