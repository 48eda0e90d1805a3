"""What records and answers look like, for people and for programs."""
