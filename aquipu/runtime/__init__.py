"""Where the event loop meets threads and the end of the program."""
