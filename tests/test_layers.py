"""The house: which room may import what. Read from the source of the package, also imports inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import aquipu

LAYERS: dict[str, tuple[str, ...]] = {
    "pure": (
        *("errors", "value", "policy", "retention", "record", "checksum", "options", "statistics", "tally"),
        *("lines", "frame", "layout", "lost", "postings", "commit", "wire"),
    ),
    "blocking": (
        *("disk", "lock", "durable", "manifest", "bookmark", "acknowledged"),
        *("purge", "segment", "journal", "relations", "rest", "view", "tail", "keyed", "finding"),
        *("recovery", "inspection", "indexes", "repair"),
        "catalogue",
    ),
    "waiting": (
        "handoff",
        "waiter",
        "worker",
        "owner",
        "closing",
        "writing",
        "indexer",
        "scan",
        "follow",
        "cursor",
        "reading",
        "reader",
        "opening",
        "connection",
        "remote",
        "store",
        "service",
        "daemon",
    ),
    "edge": ("console", "export", "commands", "queries", "changes", "serve", "cli", "__main__"),
}
"""From the top of the house to the bottom: a room may import only rooms that stand before it here."""
ROOMS = [room for rooms in LAYERS.values() for room in rooms]

FORBIDDEN: dict[str, frozenset[str]] = {
    # what the rooms of a layer may not import from outside of the package
    "pure": frozenset(
        {
            *("os", "posix", "io", "fcntl", "mmap", "pathlib", "shutil", "tempfile", "subprocess"),
            *("threading", "_thread", "queue", "concurrent", "multiprocessing", "signal", "select", "selectors", "socket"),
            *("time", "datetime", "random", "secrets", "logging"),
            *("asyncio", "anyio", "aiofiles"),
        }
    ),
    "blocking": frozenset({"asyncio", "anyio", "aiofiles"}),
    "waiting": frozenset(),
    "edge": frozenset(),
}
ONLY_IN: dict[str, frozenset[str]] = {
    # what only these rooms may import
    "os": frozenset({"disk"}),
    "posix": frozenset(),
    "fcntl": frozenset({"disk"}),
    "mmap": frozenset({"disk"}),
    "importlib": frozenset(),
    "google_crc32c": frozenset({"checksum"}),
    "typer": frozenset({"commands", "queries", "changes", "serve"}),
    "click": frozenset({"cli"}),
    "rich": frozenset({"console"}),
}

HOUSE = Path(aquipu.__file__).parent
SOURCES = {path.stem: path for path in HOUSE.glob("*.py")}
OUTSIDE = {
    path.relative_to(HOUSE).as_posix(): path for place in ("contrib", "examples") for path in (HOUSE / place).glob("*.py")
}
"""What stands before the house and knows its face only: one room a framework, and the example services."""


def imports_of(source: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each import, wherever in the source: the module, and the names that are taken from it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ("aquipu" if node.level else None, node.module)))
            yield module, tuple(alias.name for alias in node.names)


def rooms_in(source: str) -> set[str]:
    """The rooms of the package that the source imports; ``aquipu`` stands for the face of the package itself."""
    rooms = set()
    for module, names in imports_of(source):
        package, _, room = module.partition(".")
        if package == "aquipu" and room:
            rooms.add(room)
        elif package == "aquipu":
            rooms |= {name if name in ROOMS else "aquipu" for name in names or ("",)}
    return rooms


def packages_in(source: str) -> set[str]:
    """The top-level names of everything that the source imports."""
    return {module.partition(".")[0] for module, _ in imports_of(source)}


def source_of(room: str) -> str:
    return SOURCES[room].read_text()


@pytest.mark.parametrize(
    ("source", "rooms", "packages"),
    [
        ("import os.path", set(), {"os"}),
        ("def late():\n    import os as system", set(), {"os"}),
        ("if TYPE_CHECKING:\n    from aquipu.store import Store", {"store"}, {"aquipu"}),
        ("from aquipu.store import frame", {"store"}, {"aquipu"}),
        ("import aquipu.disk, time", {"disk"}, {"aquipu", "time"}),
        ("from aquipu import commit, Store", {"commit", "aquipu"}, {"aquipu"}),
        ("import aquipu", {"aquipu"}, {"aquipu"}),
        ("from . import frame", {"frame"}, {"aquipu"}),
        ("from .disk import Disk", {"disk"}, {"aquipu"}),
        ("from aquipu.cellar import wine", {"cellar"}, {"aquipu"}),
    ],
)
def test_every_way_to_import(source: str, rooms: set[str], packages: set[str]) -> None:
    """An import is seen however it is written, also within a function."""
    assert rooms_in(source) == rooms
    assert packages_in(source) == packages


def test_every_room_stands_in_the_table() -> None:
    """A file of the package is a room of the table, or stands outside of the house; the table names no other."""
    assert set(SOURCES) - {"__init__"} == set(ROOMS)
    assert set(HOUSE.rglob("*.py")) == {*SOURCES.values(), *OUTSIDE.values()}
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_above_it(room: str) -> None:
    """No room knows of one that stands below it, and only the edge knows the face of the package."""
    above = set(ROOMS[: ROOMS.index(room)])
    if room in LAYERS["edge"]:
        above.add("aquipu")
    assert rooms_in(source_of(room)) <= above


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_keeps_away_from_the_others_tools(layer: str) -> None:
    """The pure rooms know no file, thread, clock or loop; the blocking rooms no loop."""
    for room in LAYERS[layer]:
        assert not packages_in(source_of(room)) & FORBIDDEN[layer], room


@pytest.mark.parametrize("package", ONLY_IN)
def test_one_door_to_each_thing_outside(package: str) -> None:
    """Only disk.py imports os and fcntl, only console.py what draws on a terminal: each thing outside has one door."""
    importers = {room for room in SOURCES if package in packages_in(source_of(room))}
    assert importers <= ONLY_IN[package]


@pytest.mark.parametrize("place", OUTSIDE)
def test_what_stands_outside_knows_only_the_face(place: str) -> None:
    """A room of contrib/ and an example import the public face of the package, and what else stands outside."""
    outside = {place.removesuffix(".py").replace("/", ".") for place in OUTSIDE}
    assert rooms_in(OUTSIDE[place].read_text()) <= {"aquipu", "contrib", *outside}
