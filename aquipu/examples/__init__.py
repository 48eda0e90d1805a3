"""Services that keep what happens in them: each in one file, started by one command."""
