"""What a diagnosis looks like: text for a terminal, and a page of HTML."""
