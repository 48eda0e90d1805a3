"""Reading a log: what may be seen of it, scans, followers, cursors."""
