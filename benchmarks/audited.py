"""A FastAPI application whose POSTs are audited, or not: ``python -m benchmarks.audited AUDIT
DIRECTORY PORT``.

Documents are signed, as in the example service. Without an audit it is the same application without
the middleware.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aquipu import Always, EveryN, SyncPolicy
from benchmarks.webserver import serve

BODY = b'{"by":"ada"}'
REQUEST = (
    b"POST /documents/42/signatures HTTP/1.1\r\nHost: benchmark\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
"""Signs a document."""

UNAUDITED = "no audit"
ALWAYS = "Always, before the response"
FROZEN = "Always, before the response, gc.freeze()"


class Audited(NamedTuple):
    """How the POSTs are audited."""

    policy: SyncPolicy
    commit: Literal["before_response", "after_response"] = "before_response"
    freezes: bool = False
    """Whether the application, when it has started, leaves what is there out of garbage
    collection.
    """


AUDITS = {
    ALWAYS: Audited(Always()),
    FROZEN: Audited(Always(), freezes=True),
    "EveryN(64), before the response": Audited(EveryN(64)),
    "Always, after the response": Audited(Always(), "after_response"),
}


def _application(audit: str, directory: Path) -> Any:
    if audit == UNAUDITED:
        return _signing(import_module("fastapi").FastAPI())
    chosen = AUDITS[audit]
    own = _frozen if chosen.freezes else None
    return audited(str(directory / "audit"), chosen.commit, own, sync_policy=chosen.policy)


@asynccontextmanager
async def _frozen(application: Any) -> AsyncIterator[None]:
    gc.freeze()
    yield


def audited(
    store: str,
    commit: Literal["before_response", "after_response"],
    own: Any = None,
    **opening: Any,
) -> Any:
    """Return the application with an audit in this store, which is opened in this way; ``own``: the
    application's own lifespan.
    """
    fastapi, starlette = import_module("fastapi"), import_module("aquipu.contrib.starlette")
    rules = import_module("aquipu.contrib.audit")
    application = fastapi.FastAPI(lifespan=starlette.lifespan(store, own, **opening))
    application.add_middleware(
        starlette.AuditMiddleware,
        audit=rules.Audit(
            rules=[rules.Rule("POST")], relations=_relations, request_body=True, commit=commit
        ),
    )
    return _signing(application)


def _signing(application: Any) -> Any:
    async def sign(document: int, signature: dict[str, str]) -> str:
        return f"{signature['by']} has signed {document}"

    application.add_api_route("/documents/{document}/signatures", sign, methods=["POST"])
    return application


def _relations(request: Any) -> set[str]:
    return {f"{name}:{value}" for name, value in request.path_params.items()}


def main(audit: str, directory: str, port: str) -> None:
    """Serve until told to stop."""
    serve(_application(audit, Path(directory)), port)


if __name__ == "__main__":
    main(*sys.argv[1:])
