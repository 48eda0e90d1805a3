"""Sealed segments that are compressed."""
