"""A page and a JSON API to look at a store, as an ASGI application: see the README beside this."""
