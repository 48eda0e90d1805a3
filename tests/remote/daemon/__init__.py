"""Tests of the rooms of the daemon, each named by its room; `restarts` and `keys` repeat kills."""
