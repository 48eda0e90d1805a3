"""The label index: from labels to records; derived from the log, which stays the truth."""
