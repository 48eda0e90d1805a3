"""Tests of aquipu/sync/."""
