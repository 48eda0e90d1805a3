"""Tests of the rooms of the daemon, each named by its room; `restarts` repeats its kills."""
