"""The house: which room may import what. Read from the source of the package, also imports inside functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import aquipu

LAYERS: dict[str, tuple[str, ...]] = {
    "pure": (
        *("errors", "value", "policy", "retention", "record", "checksum", "options", "statistics", "tally"),
        *("frame", "layout", "lost", "postings", "commit", "daemon.wire", "cli.lines"),
    ),
    "blocking": (
        *("disk", "lock", "durable", "manifest", "bookmark", "acknowledged"),
        *("purge", "segment", "journal", "relations", "rest", "view", "tail", "daemon.keyed", "finding"),
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
        "daemon.connection",
        "daemon.remote",
        "store",
        "daemon.answers",
        "daemon.server",
    ),
    "edge": (
        *("cli.console", "cli.app", "cli.export", "cli.metrics", "cli.queries", "cli.changes", "cli.serve", "cli.main"),
        "__main__",
    ),
}
"""From the top of the house to the bottom: a room may import only rooms that stand before it here."""
ROOMS = [room for rooms in LAYERS.values() for room in rooms]
FOLDERS = sorted({room.rpartition(".")[0] for room in ROOMS} - {""})
"""Of rooms that belong together. A folder is no room: nobody imports it, only what stands in it."""

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
    "typer": frozenset({"cli.app", "cli.queries", "cli.changes", "cli.serve"}),
    "click": frozenset(),
    "rich": frozenset({"cli.console"}),
}

HOUSE = Path(aquipu.__file__).parent


def name_of(path: Path) -> str:
    """The name of a room in the table: ``store``, ``cli.app``."""
    return ".".join(path.relative_to(HOUSE).with_suffix("").parts)


SOURCES = {name_of(path): path for place in (HOUSE, *map(HOUSE.joinpath, FOLDERS)) for path in place.glob("*.py")}
OUTSIDE = {name_of(path): path for place in ("contrib", "examples") for path in (HOUSE / place).glob("*.py")}
"""What stands before the house and knows its face only: one room a framework, and the example services."""


def imports_of(source: str, package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each import, wherever in the source of a file of ``package``: the module, and the names that are taken from it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield resolve_name("." * node.level + (node.module or ""), package), tuple(alias.name for alias in node.names)


def rooms_in(source: str, package: str) -> set[str]:
    """The rooms of the house that the source imports; ``aquipu`` stands for the face of the package itself, and a folder
    for whatever is taken of it that is no room."""
    rooms = set()
    for module, names in imports_of(source, package):
        top, _, place = module.partition(".")
        if top == "aquipu" and place in ROOMS:
            rooms.add(place)
        elif top == "aquipu":
            inner = [".".join(filter(None, (place, name))) for name in names or ("",)]
            rooms |= {name if name in ROOMS + FOLDERS else place or "aquipu" for name in inner}
    return rooms


def packages_in(source: str, package: str) -> set[str]:
    """The top-level names of everything that the source imports."""
    return {module.partition(".")[0] for module, _ in imports_of(source, package)}


def package_of(room: str) -> str:
    """Of a room, or of what stands outside: from where its relative imports start."""
    return f"aquipu.{room}".rpartition(".")[0]


def rooms_of(room: str) -> set[str]:
    """What a room of the house imports of the house."""
    return rooms_in(SOURCES[room].read_text(), package_of(room))


def packages_of(room: str) -> set[str]:
    """What a room of the house imports of everything."""
    return packages_in(SOURCES[room].read_text(), package_of(room))


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
        ("from aquipu.disk.cellar import wine", {"disk.cellar"}, {"aquipu"}),
        ("import aquipu.cli.app", {"cli.app"}, {"aquipu"}),
        ("def late():\n    from aquipu.cli import app, wine", {"cli.app", "cli"}, {"aquipu"}),
        ("from aquipu.cli import *", {"cli"}, {"aquipu"}),
        ("from aquipu import cli, Store", {"cli", "aquipu"}, {"aquipu"}),
        ("from .cli.app import say", {"cli.app"}, {"aquipu"}),
        ("from .cli import app", {"cli.app"}, {"aquipu"}),
    ],
)
def test_every_way_to_import(source: str, rooms: set[str], packages: set[str]) -> None:
    """An import is seen however it is written, also within a function."""
    assert rooms_in(source, "aquipu") == rooms
    assert packages_in(source, "aquipu") == packages


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("from . import app", {"cli.app"}),
        ("from .app import say", {"cli.app"}),
        ("from . import frame", {"cli"}),
        ("from .frame import Flag", {"cli.frame"}),
        ("from .. import frame, Store", {"frame", "aquipu"}),
        ("from ..frame import Flag", {"frame"}),
        ("from ..cli import app", {"cli.app"}),
    ],
)
def test_every_way_to_import_from_within_a_folder(source: str, rooms: set[str]) -> None:
    """One dot is the folder, two are the house."""
    assert rooms_in(source, "aquipu.cli") == rooms


def test_every_room_stands_in_the_table() -> None:
    """A file of the package is a room of the table, or stands outside of the house; the table names no other."""
    assert set(SOURCES) == {*ROOMS, "__init__", *(f"{folder}.__init__" for folder in FOLDERS)}
    assert set(HOUSE.rglob("*.py")) == {*SOURCES.values(), *OUTSIDE.values()}
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_which_room_is_which(folder: str) -> None:
    """It opens with a table of its rooms, from the top of the house to the bottom. It holds nothing else, so that who wants
    one of them does not load the others."""
    theory, *rest = ast.parse(SOURCES[f"{folder}.__init__"].read_text()).body
    told = re.findall(r"^`(\w+)`", ast.literal_eval(theory.value) if isinstance(theory, ast.Expr) else "", re.MULTILINE)
    assert [f"{folder}.{room}" for room in told] == [room for room in ROOMS if room.startswith(f"{folder}.")]
    assert rest == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_above_it(room: str) -> None:
    """No room knows of one that stands below it, and only the edge knows the face of the package and what stands on it."""
    above = set(ROOMS[: ROOMS.index(room)])
    if room in LAYERS["edge"]:
        above |= {"aquipu", *OUTSIDE}
    assert rooms_of(room) <= above


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_keeps_away_from_the_others_tools(layer: str) -> None:
    """The pure rooms know no file, thread, clock or loop; the blocking rooms no loop."""
    for room in LAYERS[layer]:
        assert not packages_of(room) & FORBIDDEN[layer], room


@pytest.mark.parametrize("package", ONLY_IN)
def test_one_door_to_each_thing_outside(package: str) -> None:
    """Only disk.py imports os and fcntl, only cli/console.py what draws on a terminal: each thing outside has one door."""
    importers = {room for room in SOURCES if package in packages_of(room)}
    assert importers <= ONLY_IN[package]


@pytest.mark.parametrize("place", OUTSIDE)
def test_what_stands_outside_knows_only_the_face(place: str) -> None:
    """A room of contrib/ and an example import the public face of the package, and what else stands outside."""
    assert rooms_in(OUTSIDE[place].read_text(), package_of(place)) <= {"aquipu", "contrib", *OUTSIDE}
