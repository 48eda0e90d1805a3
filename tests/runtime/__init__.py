"""Tests of aquipu/runtime/."""
