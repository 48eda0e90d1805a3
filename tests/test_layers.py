"""The layers of the package: which folder may import which, read from the source, also within
functions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pytest

import aquipu

PACKAGE = Path(aquipu.__file__).parent
WORDS = frozenset({"errors", "policy", "record", "labels", "options", "statistics"})
"""The words of the log: files at the top that every folder may import."""

COMMANDS = frozenset(
    {"words", "store", "remote/store", "reader", "reading", "runtime", "local/format"}
    | {
        "local/disk",
        "local/retain",
        "local/read",
        "local/write",
        "local/index",
        "local/check",
        "local/check/diagnosis",
        "local",
    }
    | {"cli", "cli/forms", "cli/forms/diagnosis", "cli/streams", "cli/top", "cli/bench"}
    | {"postgres", "postgres/schema", "postgres/care"}
)

MAY_IMPORT: dict[str, frozenset[str]] = {
    "words": frozenset({"local/retain"}),
    "runtime": frozenset({"words"}),
    "reading": frozenset({"words", "runtime"}),
    "engine": frozenset({"words", "reading", "runtime"}),
    "commit": frozenset({"words", "engine", "runtime"}),
    "local/format": frozenset({"words"}),
    "local/disk": frozenset({"words", "local/format"}),
    "local/retain": frozenset({"words", "local/format", "local/disk"}),
    "local/read": frozenset(
        {"words", "local/format", "local/disk", "local/retain", "reading", "runtime"}
    ),
    "local/index": frozenset({"words", "local/format", "local/disk", "local/read", "runtime"}),
    "local/write": frozenset(
        {"words", "local/format", "local/disk", "local/retain", "local/read", "local/preload"}
        | {"reading", "engine", "runtime"}
    ),
    "local/compress": frozenset({"words", "local/format", "local/disk", "local/read"}),
    "local/check": frozenset(
        {"words", "local/format", "local/disk", "local/retain", "local/write", "local/index"}
        | {"local/read"}
    ),
    "local/check/diagnosis": frozenset(
        {"words", "local/format", "local/disk", "local/retain", "local/write", "local/check"}
        | {"local/read"}
    ),
    "local/backup": frozenset(
        {"words", "local/format", "local/disk", "local/retain", "local/read", "local/write"}
    ),
    "archive/format": frozenset({"words", "local/format", "local/read"}),
    "archive": frozenset(
        {"words", "local/format", "local/disk", "local/read", "local/retain", "local/backup"}
        | {"archive/format", "archive/places", "local/compress", "runtime"}
    ),
    "archive/places": frozenset({"local/format", "local/disk", "archive/format"}),
    "archive/read": frozenset(
        {"words", "local/format", "local/disk", "local/read", "local/index", "local/preload"}
        | {"local", "local/backup", "archive", "archive/format", "reading", "runtime"}
    ),
    "local/copying": frozenset(
        {"words", "engine", "reading", "local", "local/backup", "local/format", "local/disk"}
        | {"local/read"}
    ),
    "local/preload": frozenset({"local/index", "words", "runtime"}),
    "local": frozenset(
        {"words", "local/format", "local/disk", "local/retain", "local/read", "local/write"}
        | {
            "local/index",
            "local/backup",
            "local/compress",
            "local/preload",
            "reading",
            "engine",
            "commit",
            "runtime",
        }
        | {"archive", "archive/read"}
    ),
    "remote": frozenset(
        {"words", "engine", "reading", "commit", "runtime", "local/disk", "local/format"}
        | {"local/retain"}
    ),
    "postgres": frozenset(
        {"words", "engine", "reading", "runtime", "postgres/schema", "postgres/link"}
        | {"postgres/read"}
    ),
    "postgres/store": frozenset({"words", "store", "postgres", "runtime"}),
    "postgres/link": frozenset({"words", "runtime", "postgres"}),
    "postgres/read": frozenset({"words", "reading", "postgres"}),
    "postgres/schema": frozenset({"words", "postgres", "postgres/link"}),
    "postgres/care": frozenset(
        {"words", "postgres", "postgres/schema", "postgres/link", "postgres/read"}
    ),
    "reader": frozenset(
        {"words", "reading", "runtime", "local", "local/disk", "local/read", "local/index"}
        | {"local/preload", "local/retain", "postgres"}
        | {"archive", "archive/read"}
    ),
    "store": frozenset(
        {"words", "reading", "engine", "commit", "runtime", "local", "remote"}
        | {"remote/store", "local/disk", "local/retain", "local/write", "archive"}
        | {"postgres/store"}
    ),
    "remote/store": frozenset({"words", "store", "remote", "remote/shared", "local/disk"}),
    "remote/daemon": frozenset({"words", "store", "remote", "runtime", "local/disk"}),
    "sync": frozenset({"face", "engine", "words"}),
    "remote/shared": frozenset(
        {"words", "engine", "store", "remote", "remote/daemon", "local", "local/disk"}
        | {"local/format", "local/read", "local/write"}
    ),
    "contrib/shared": frozenset({"face"}),
    "contrib/auditing": frozenset({"face", "contrib/shared"}),
    "contrib/testing": frozenset({"face", "sync"}),
    "contrib/streaming": frozenset({"face"}),
    "contrib/web": frozenset({"face", "contrib", "contrib/shared", "contrib/streaming"}),
    "contrib": frozenset(
        {
            "face",
            "contrib/shared",
            "contrib/auditing",
            "contrib/testing",
            "contrib/streaming",
            "sync",
        }
    ),
    "examples": frozenset({"face", "contrib", "sync"}),
    "cli": frozenset(
        {
            "words",
            "face",
            "contrib",
            "store",
            "remote/store",
            "reader",
            "runtime",
            "local/disk",
            "local/retain",
        }
        | {"local/write", "local/check/diagnosis", "cli/forms", "cli/streams", "archive"}
    ),
    "cli/streams": frozenset({"words", "local/disk"}),
    "cli/forms": frozenset({"words", "local/check", "cli/streams"}),
    "cli/forms/diagnosis": frozenset(
        {"words", "local/check", "local/check/diagnosis", "cli/forms"}
    ),
    "cli/bench": frozenset(
        {"words", "store", "local/disk", "local/check/diagnosis", "cli/forms", "cli/streams"}
    ),
    "cli/top": frozenset(
        {"words", "store", "remote/store", "local/format", "local/disk", "local/retain"}
        | {"reader", "local/read", "local/check/diagnosis", "cli/forms", "cli/forms/diagnosis"}
    ),
    "cli/commands/records": COMMANDS,
    "cli/commands/upkeep": COMMANDS | {"archive", "archive/read", "local/backup", "local/copying"},
    "cli/commands/service": COMMANDS | {"remote/daemon", "contrib/web"},
    "cli/commands": frozenset(),
    "cli/main": frozenset(
        {"cli", "cli/commands/records", "cli/commands/upkeep", "cli/commands/service"}
    ),
    "__main__": frozenset({"cli/main", "cli/streams"}),
}
"""For each folder, and for the files at the top that are no words, what else of the package it may
import. ``face`` is the package itself: the public names.
"""

PURE = frozenset(
    {
        *WORDS,
        *(
            "local/format",
            "local/retain/retention",
            "local/index/postings",
            "local/index/meter",
            "local/index/plan",
            "local/check/placeholder",
            "local/check/diagnosis/facts",
            "local/check/diagnosis/file_systems",
            "local/check/diagnosis/opening",
            "local/check/diagnosis/remarks",
            "local/check/diagnosis/stretches",
            "local/backup/plan",
            "archive/errors",
            "archive/format",
            "archive/read/cache",
            "archive/places/address",
            "archive/places/hidden",
            "local/compress/blocks",
        ),
        *(
            "runtime/allowance",
            "runtime/counting",
            "runtime/trouble",
            "commit/group",
            "commit/keys",
            "remote/protocol",
            "postgres/address",
            "postgres/batches",
            "postgres/schema/functions",
            "postgres/schema/outbox",
            "postgres/schema/receiving",
            "postgres/schema/tables",
            "postgres/schema/versions",
            "cli/streams/lines",
            "cli/forms/stream",
            "cli/forms/jsonl",
            "cli/bench/plan",
            "cli/bench/results",
            "cli/bench/advice",
            "cli/bench/table",
            "cli/top/samples",
            "cli/top/view",
            "cli/top/drawing",
            "cli/forms/diagnosis/style",
            "cli/forms/diagnosis/page",
            "cli/forms/diagnosis/text",
        ),
    }
)
"""Folders and files that know no file, thread, clock or event loop."""
IMPURE_PACKAGES = frozenset(
    {
        *("os", "posix", "io", "fcntl", "mmap", "pathlib", "shutil", "tempfile", "subprocess"),
        *(
            "threading",
            "_thread",
            "queue",
            "concurrent",
            "multiprocessing",
            "signal",
            "select",
            "selectors",
            "socket",
        ),
        *("time", "datetime", "random", "secrets", "logging"),
        *("asyncio", "anyio", "aiofiles"),
    }
)
CALENDAR = frozenset({"record"})
"""Pure files that give times as datetimes all the same: the calendar, and not the clock."""
CUTTING = frozenset({"local/format/columns"})
"""Pure files that cut bytes by the files in memory of `io`, and open none."""
BLOCKING = frozenset(
    {"local/disk", "local/retain", "local/check", "local/check/diagnosis", "local/backup"}
    | {"local/compress", "archive", "archive/places"}
)
"""Folders that know no event loop."""
LOOP_PACKAGES = frozenset({"asyncio", "anyio", "aiofiles"})

FILES = {str(path.relative_to(PACKAGE).with_suffix("")): path for path in PACKAGE.rglob("*.py")}

ONLY_IN: dict[str, frozenset[str]] = {
    "os": frozenset(
        f"local/disk/{file}"
        for file in ("disk", "open_files", "paths", "pins", "rights", "sockets", "system")
    ),
    "posix": frozenset(),
    "fcntl": frozenset({"local/disk/disk", "local/disk/system"}),
    "mmap": frozenset(),
    "importlib": frozenset({"cli/app", "archive/archive"}),
    "google_crc32c": frozenset({"local/format/structure"}),
    "zstandard": frozenset({"local/format/frame", "local/opening"}),
    "typer": frozenset({"cli/app", "cli/arguments", "cli/storing"})
    | frozenset(file for file in FILES if file.startswith("cli/commands/")),
    "asyncpg": frozenset({"postgres/link/driver"}),
    "click": frozenset(),
    "rich": frozenset({"cli/streams/console", "cli/top/screen"}),
    "obstore": frozenset({"archive/archive"}),
}
"""What only these files may import. Those of contrib stand outside: each meets a framework."""


@cache
def imports_of_file(file: str) -> list[tuple[str, str]]:
    """Return the imports of a file of the package: many rules ask for them, and it is read once."""
    return list(imports_of(FILES[file].read_text(), package_of(file)))


def imports_of(source: str, package: str) -> Iterator[tuple[str, str]]:
    """Yield each import of a source as the module and the name taken from it, or an empty name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from ((module, alias.name) for alias in node.names)


def place_of(file: str) -> str:
    """Return the row of the table to which a file of the package belongs."""
    if file in WORDS:
        return "words"
    if file == "__init__":
        return "face"
    if file in MAY_IMPORT:
        return file
    folder = file.rpartition("/")[0]
    return folder or file


def file_of(module: str, name: str) -> str | None:
    """Return the file of the package that an import reads;

    None for what is no part of the package.
    """
    top, *rest = module.split(".")
    if top != "aquipu":
        return None
    for parts in ([*rest, name], rest):
        for file in ("/".join(parts), "/".join([*parts, "__init__"])):
            if file.strip("/") in FILES:
                return file.strip("/")
    return "__init__"


def package_of(file: str) -> str:
    """Return the package from which relative imports of a file start."""
    parts = ("aquipu", *Path(file).parts)
    return ".".join(parts[:-1])


def places_in(file: str) -> set[str]:
    """Return the rows of the table that a file imports."""
    files = (file_of(module, name) for module, name in imports_of_file(file))
    return {place_of(found) for found in files if found is not None}


def packages_in(file: str) -> set[str]:
    """Return the top-level names of everything that a file imports."""
    return {module.partition(".")[0] for module, _ in imports_of_file(file)}


def stands_in(file: str, places: frozenset[str]) -> bool:
    """Return whether a file is one of these places, or stands in one of these folders."""
    return file in places or file.rpartition("/")[0] in places


@pytest.mark.parametrize(
    ("source", "places"),
    [
        ("import os.path", set()),
        ("def late():\n    from aquipu.errors import AquipuError", {"words"}),
        ("if TYPE_CHECKING:\n    from aquipu.store import Store", {"store"}),
        ("import aquipu.local.disk.disk, time", {"local/disk"}),
        ("from aquipu.local.disk import disk", {"local/disk"}),
        ("from aquipu import Store, errors", {"face", "words"}),
        ("import aquipu", {"face"}),
        ("from . import errors", {"words"}),
        ("from .local.disk.disk import Disk", {"local/disk"}),
        ("from aquipu.cli import *", {"cli"}),
    ],
)
def test_every_way_to_import_is_seen(source: str, places: set[str]) -> None:
    """An import is seen however it is written, also within a function."""
    files = [file_of(module, name) for module, name in imports_of(source, "aquipu")]
    assert {place_of(file) for file in files if file is not None} == places


def test_every_folder_stands_in_the_table() -> None:
    """A file belongs to one row of the table, and no row is without a file."""
    places = {place_of(file) for file in FILES}
    folders = {folder for folder in MAY_IMPORT if (PACKAGE / folder).is_dir()}
    assert places - {"face"} == set(MAY_IMPORT)
    assert folders == {place for place in places if (PACKAGE / place).is_dir()}


def test_a_file_imports_only_what_its_folder_may() -> None:
    """A folder knows only the folders that the table gives it."""
    files = set(FILES) - {"__init__", "local/__init__"}
    more = {f: places_in(f) - MAY_IMPORT[place_of(f)] - {place_of(f)} for f in files}
    assert {file: places for file, places in more.items() if places} == {}


def test_a_file_keeps_away_from_the_tools_of_others() -> None:
    """What is pure knows no file, thread, clock or event loop; what blocks knows no event loop."""
    for file in FILES:
        if stands_in(file, PURE):
            allowed = {"datetime"} if file in CALENDAR else {"io"} if file in CUTTING else set()
            assert not (packages_in(file) - allowed) & IMPURE_PACKAGES, file
        if stands_in(file, BLOCKING):
            assert not packages_in(file) & LOOP_PACKAGES, file


@pytest.mark.parametrize("package", ONLY_IN)
def test_one_door_to_each_thing_outside(package: str) -> None:
    """The operating system, checksums and the terminal are each reached through one file."""
    importers = {file for file in FILES if package in packages_in(file)}
    outside = {file for file in importers if file.startswith(("contrib/", "examples/"))}
    assert importers - outside <= ONLY_IN[package]


@pytest.mark.parametrize(
    "file",
    sorted(
        file
        for file in FILES
        if file.endswith("__init__") and "/" in file and file != "sync/__init__"
    ),
)
def test_a_folder_loads_nothing_by_itself(file: str) -> None:
    """The `__init__` of a folder holds its theory and no code, so that who wants one file does not
    load the others.
    """
    theory, *rest = ast.parse(FILES[file].read_text()).body
    assert isinstance(theory, ast.Expr)
    assert isinstance(theory.value, ast.Constant)
    assert rest == []


def test_the_synchronous_face_gathers_its_names() -> None:
    """`aquipu.sync` is imported as a whole: its theory, and its names from its own files."""
    theory, *imports, names = ast.parse(FILES["sync/__init__"].read_text()).body
    assert isinstance(theory, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert ast.unparse(names).startswith("__all__ = ")
    assert places_in("sync/__init__") == {"sync"}
