"""The embedded engine: files of this machine, and the one thread that writes them."""
