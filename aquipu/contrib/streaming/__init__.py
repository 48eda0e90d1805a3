"""What streams of records are made of: a record as JSON, and the end of a log, followed once."""
