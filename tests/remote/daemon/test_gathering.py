"""Gathering: commits of clients that enter the store together."""

from __future__ import annotations

import asyncio
from asyncio import Task, get_running_loop

import pytest

from aquipu.remote.daemon import gathering as room
from aquipu.remote.daemon.gathering import Gathering
from tests.remote.daemon.served import until

NEVER = 1000.0


class Clients:
    """Commits that enter, and are done when they are told."""

    def __init__(self) -> None:
        self.gathering = Gathering(get_running_loop())
        self.entered = list[str]()
        self.done = asyncio.Event()
        self.tasks = dict[str, Task[None]]()

    async def come(self, *names: str) -> None:
        """Have these come in one tick of the loop."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._commit(name))
        await self.settled()

    async def end(self) -> None:
        """Have done what has entered."""
        self.entered.clear()
        done, self.done = self.done, asyncio.Event()
        done.set()
        await self.settled()

    async def settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def _commit(self, name: str) -> None:
        async with self.gathering:
            self.entered.append(name)
            await self.done.wait()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE", NEVER)


@pytest.mark.asyncio
async def test_one_client_alone(patience: None) -> None:
    """It enters at once, each time."""
    clients = Clients()
    for name in "abc":
        await clients.come(name)
        assert clients.entered == [name]
        await clients.end()


@pytest.mark.asyncio
async def test_clients_that_come_in_one_tick(patience: None) -> None:
    """They enter together, though the first of them waited for nobody."""
    clients = Clients()
    await clients.come("a", "b", "c")
    assert clients.entered == ["a", "b", "c"]
    await clients.end()


@pytest.mark.asyncio
async def test_clients_that_come_while_a_commit_is_under_way(patience: None) -> None:
    """They enter together when it is done, and not before."""
    clients = Clients()
    await clients.come("a")
    await clients.come("b")
    await clients.come("c")
    assert clients.entered == ["a"]
    await clients.end()
    assert clients.entered == ["b", "c"]
    await clients.end()


@pytest.mark.asyncio
async def test_fewer_than_half_come_back(patience: None) -> None:
    """The first of them wait until they are half of those who entered the last two times."""
    clients = Clients()
    await clients.come("a", "b", "c", "d")
    await clients.end()
    await clients.come("a")
    assert clients.entered == []
    await clients.come("b")
    assert clients.entered == ["a", "b"]
    await clients.end()
    await clients.come("a", "b")  # of 4 + 2
    assert clients.entered == []
    await clients.come("c")
    assert clients.entered == ["a", "b", "c"]
    await clients.end()


@pytest.mark.asyncio
async def test_nobody_else_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is there enters when patience is at its end; while that was in vain each time, it is
    left out the next 1, 3, 7 times.
    """
    monkeypatch.setattr(room, "PATIENCE", 0)
    assert await waits(Clients(), 21) == [2, 5, 11, 20]


@pytest.mark.asyncio
async def test_the_others_come_back_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it was not in vain, the next time is not left out, and then one is again."""
    monkeypatch.setattr(room, "PATIENCE", 0)
    clients = Clients()
    assert await waits(clients, 12) == [2, 5, 11]
    assert await waits(clients, 8) == []
    monkeypatch.setattr(room, "PATIENCE", NEVER)
    await clients.come("a")
    assert clients.entered == []
    await clients.come("b", "c", "d")
    await clients.end()
    monkeypatch.setattr(room, "PATIENCE", 0)
    assert await waits(clients, 6) == [2, 5]


async def waits(clients: Clients, times: int) -> list[int]:
    """Let four clients enter, four, one, four, ...; which of the times was waited in vain."""
    found = list[int]()
    for number in range(times):
        names = "abcd" if number % 3 < 2 else "a"  # one is less than half of eight
        left_out = clients.gathering._skip
        await clients.come(*names)
        await until(lambda: clients.entered)
        assert clients.entered == list(names)
        if clients.gathering._skip > left_out:
            found.append(number)
        await clients.end()
    return found


@pytest.mark.asyncio
async def test_a_client_that_is_cut_off(patience: None) -> None:
    """One that waits is not counted; one that has entered counts as done."""
    clients = Clients()
    await clients.come("a")
    await clients.come("b", "c")
    clients.tasks["b"].cancel()
    await clients.settled()
    await clients.end()
    assert clients.entered == ["c"]
    await clients.come("d", "e")
    await clients.end()
    await clients.come("f", "g")
    clients.tasks["d"].cancel()
    await clients.settled()
    assert clients.entered == ["d", "e"]  # and the other one is under way
    await clients.end()
    assert clients.entered == ["f", "g"]
    await clients.end()


@pytest.mark.asyncio
async def test_a_client_that_is_cut_off_as_it_enters(patience: None) -> None:
    """It counts as done: nobody waits for it for ever."""
    clients = Clients()
    entering = asyncio.create_task(clients._commit("a"))
    while not clients.gathering._under_way:  # noqa: ASYNC110 - its turn comes one tick later
        await asyncio.sleep(0)
    entering.cancel()
    await clients.settled()
    assert clients.entered == []
    await clients.come("b")
    assert clients.entered == ["b"]
    await clients.end()
