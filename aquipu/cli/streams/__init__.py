"""Where the command line meets the outside: standard streams, and the files that it writes."""
