"""The page and the API of a store."""
