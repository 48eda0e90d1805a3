"""Services that end under load: what their clients were told must be in the store. ``python -m
tests.services`` repeats the kills.

======================  ============================================================================
`client`                many connections in a process of their own, and what each of them was told
`kills`                 a service is killed at random, again and again, its store judged each time
`load`                  clients that come back when they were cut off
`server`                a server with all its processes, told by signals
`fastapi_app`           the example with FastAPI, and a stream; and one with the store of a daemon
`aiohttp_app`           the example with aiohttp, and a stream
`flask_app`             the example with Flask, whose workers share its store or have a daemon's
======================  ============================================================================
"""
