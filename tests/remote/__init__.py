"""Tests of aquipu/remote/."""
