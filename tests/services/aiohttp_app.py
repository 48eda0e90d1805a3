"""The example with aiohttp and a stream that only its client ends: ``python -m
tests.services.aiohttp_app PORT SECONDS``.

``SECONDS`` is how long it waits for its requests when it is told to end.
"""

from __future__ import annotations

import sys
from asyncio import sleep
from contextlib import suppress

from aiohttp import web

from aquipu.examples.aiohttp_service import app

_PAUSE = 0.05


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(b"more")
            await sleep(_PAUSE)
    return response


app.router.add_post("/stream", stream)

if __name__ == "__main__":
    web.run_app(app, host="localhost", port=int(sys.argv[1]), shutdown_timeout=float(sys.argv[2]))
