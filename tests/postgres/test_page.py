"""The page of a log in a database, from a process that writes it and from one that reads it."""

from __future__ import annotations

import pytest

from aquipu import Reader, Store
from aquipu.contrib.streaming.live import AnyLog
from aquipu.contrib.web.app import app
from tests.contrib.web.support import client_of, stream

pytestmark = pytest.mark.asyncio


async def test_it_shows_what_is_there_and_what_comes(address: str) -> None:
    """Records, labels, a tail that is live, and how far the log has come, from either."""
    async with Store.open(address) as store, Reader.open(address) as reader:
        await store.append_many([b"one", b"two"], relations=["user:7"])
        logs: list[tuple[AnyLog, str]] = [(store, "store"), (reader, "reader")]
        for log, kind in logs:
            async with client_of(app(log, write=kind == "store")) as client:
                known = (await client.get("/api/status")).json()
                assert (known["kind"], known["writable"]) == (kind, kind == "store")
                end = known["next_sequence"]
                seen = stream(app(log), "/api/live", last_event_id=str(end))
                following = stream(app(log), "/api/events", last_event_id=str(end - 1))
                await seen.until(1)
                await following.begun()
                await store.append(b"new", relations=["user:7"])
                await following.until(1)
                assert following.sequences == [end]
                moments = await seen.until(4)
                shown = [record for moment in moments for record in moment.data["records"]]
                assert [record["sequence"] for record in shown] == [end]
                for one in (seen, following):
                    await one.leave()
                found = (await client.get("/api/records?relation=user:7")).json()
                assert [one["sequence"] for one in found["records"]] == list(range(end, -1, -1))
                labels = (await client.get("/api/labels?prefix=user")).json()["labels"]
                assert labels == [{"label": "user:7", "records": end + 1}]
                assert sum((await client.get("/api/rate")).json()["counts"]) == end + 1
