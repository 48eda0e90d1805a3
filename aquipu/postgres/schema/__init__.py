"""The tables and functions of a database, by versions, and how they come into it."""
