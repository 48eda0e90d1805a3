"""A log in a database where a path is taken: without `await`, by handlers, by services."""

from __future__ import annotations

import logging

import pytest

import aquipu.sync
from aquipu import Always
from aquipu.contrib.logging import StoreHandler
from aquipu.contrib.shared.opener import opener_of
from tests.cli.support import well
from tests.remote.daemon.served import soon


def test_without_await(address: str) -> None:
    """The synchronous calls take its address."""
    with aquipu.sync.open(address, sync_policy=Always()) as store:
        assert store.append(b"one", relations=("a",)).sequence == 0
        assert store.append(b"again", key=("orders", 1)) == store.append(b"x", key=("orders", 1))
        assert [record.data for record in store.scan(relation="a")] == [b"one"]
    assert well("cat", address) == b"one\nagain\n"


@pytest.mark.asyncio
async def test_a_handler_in_a_service(address: str) -> None:
    """A service opens its store by the address, and what it logs is stored there."""
    handler = StoreHandler()
    log = logging.getLogger("tests.postgres.elsewhere")
    log.propagate = False
    log.addHandler(handler)
    try:
        async with (
            opener_of(address, {"sync_policy": Always()})() as store,
            handler.into(store),
            store.follow("earliest") as records,
        ):
            log.warning("the door is open")
            assert b"the door is open" in (await soon(anext(records))).data
    finally:
        log.removeHandler(handler)
        handler.close()


def test_options_of_a_service(address: str) -> None:
    """They are refused when it is made, and not when it starts."""
    with pytest.raises(TypeError, match="no files here"):
        opener_of(address, {"shared": True})
