"""The only door to the operating system, and what is certain to be on the disk."""
