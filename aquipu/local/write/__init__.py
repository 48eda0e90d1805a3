"""Writing a log: the worker's thread, the journal, its segments, and opening after a crash."""
