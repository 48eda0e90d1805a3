"""What an archive is made of, as values and bytes, and what is put next. Pure."""
