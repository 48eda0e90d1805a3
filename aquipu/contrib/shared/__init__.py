"""What the services share: entries, requests, pages and stores. Not for import by programs."""
