"""The example with FastAPI as services grow: with a stream that only its client ends, and once with
the store of a daemon.

``uvicorn tests.services.fastapi_app:app`` writes the store ``audit`` itself; of ``:connected`` a
daemon writes it, which listens at ``audit.sock``; the workers of ``:shared`` share it.
"""

from __future__ import annotations

from asyncio import Event
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from aquipu import Always, Store
from aquipu.contrib.audit import Audit, Rule
from aquipu.contrib.starlette import AuditMiddleware, lifespan
from aquipu.examples.fastapi_service import app, relations, sign


@app.post("/stream")
async def stream() -> StreamingResponse:
    async def endless() -> AsyncIterator[bytes]:
        yield b"more"
        await Event().wait()

    return StreamingResponse(endless())


def audited(app: FastAPI) -> FastAPI:
    """Return it with a route whose requests are audited."""
    app.add_middleware(AuditMiddleware, audit=Audit(rules=[Rule("POST")], relations=relations))
    app.post("/documents/{document}/signatures", status_code=201)(sign)
    return app


connected = audited(FastAPI(lifespan=lifespan(lambda: Store.connect("unix:audit.sock"))))
shared = audited(FastAPI(lifespan=lifespan("audit", shared=True, sync_policy=Always())))
