"""What is done to logs in a database from outside: looked into, checked, moved."""
