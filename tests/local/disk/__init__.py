"""Tests of aquipu/local/disk/."""
