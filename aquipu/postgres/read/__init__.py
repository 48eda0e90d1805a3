"""Reading a log in a database: pages, scans and followers."""
