"""What monitoring asks for: the metrics, whether the service lives, and whether it can be used."""

from __future__ import annotations

from asyncio import timeout
from collections.abc import Iterator

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from aquipu import AquipuError, RemoteStore, Store
from aquipu.contrib.streaming.live import end_of
from aquipu.contrib.web.standing import Standing, readable

_READY_SECONDS = 5.0
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Monitoring:
    """Answers for one store."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    async def healthz(self, request: Request) -> Response:
        """Say that the service lives: it answers."""
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """Say whether the store can be read, and takes what it is for: 503 if not."""
        store = self._standing.store
        try:
            async with timeout(_READY_SECONDS):
                await end_of(store)
        except (AquipuError, TimeoutError):
            return PlainTextResponse("the store cannot be read\n", 503)
        if isinstance(store, Store) and store.health().state in ("failed", "closed"):
            return PlainTextResponse("the store takes nothing more\n", 503)
        return PlainTextResponse("ok\n")

    async def metrics(self, request: Request) -> Response:
        """Give the metrics for Prometheus; of a log that another writes, those that are known.

        A client of a daemon counts what it has appended itself, and that is not the log's.
        """
        store = self._standing.store
        if not isinstance(store, Store) or isinstance(store, RemoteStore):
            lags = await self._standing.consumers() or {}
            records = {name: lag["records"] for name, lag in lags.items()}
            seconds = {name: lag["seconds"] for name, lag in lags.items()}
            label = readable(store.path)
            return Response(
                "".join(
                    [
                        *_gauge("aquipu_first_sequence", "", label, {"": store.first_sequence}),
                        *_gauge("aquipu_next_sequence", "", label, {"": store.next_sequence}),
                        *_gauge("aquipu_cursor_records", "cursor", label, records),
                        *_gauge("aquipu_cursor_seconds", "cursor", label, seconds),
                    ]
                ),
                media_type=_METRICS,
            )
        try:
            from prometheus_client import CollectorRegistry, generate_latest

            from aquipu.contrib.prometheus import exported
        except ModuleNotFoundError:
            raise HTTPException(
                501,
                "metrics need the extra prometheus: in the checkout of aquipu, "
                "pip install -e '.[prometheus]'",
            ) from None
        registry = CollectorRegistry()
        with exported(store, registry=registry):
            return Response(generate_latest(registry), media_type=_METRICS)


def _gauge(name: str, label: str, store: str, values: dict[str, float]) -> Iterator[str]:
    """Yield the lines of one metric."""
    if values:
        yield f"# TYPE {name} gauge\n"
    for one, value in values.items():
        more = f",{label}={_quoted(one)}" if label else ""
        yield f"{name}{{store={_quoted(store)}{more}}} {value}\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
