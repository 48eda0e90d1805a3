"""The public names of the package, and what it costs to import them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import aquipu

NAMES = [
    "Always",
    "AquipuError",
    "Archive",
    "ArchiveDamagedError",
    "ArchiveError",
    "ArchiveRefusedError",
    "ArchiveTakenError",
    "ArchiveUnavailableError",
    "Backup",
    "BackupRefusedError",
    "BatchTooLargeError",
    "BufferFullError",
    "ConflictError",
    "CorruptionError",
    "Cursor",
    "Disk",
    "EveryN",
    "Follow",
    "ForkedStoreError",
    "Health",
    "Histogram",
    "IncompleteCopyError",
    "NoArchiveError",
    "NoSuchRecordError",
    "NotAStoreError",
    "OsManaged",
    "OutcomeUnknownError",
    "Page",
    "Position",
    "PositionLostError",
    "Purged",
    "Reader",
    "Receipt",
    "Record",
    "RecordNotWrittenError",
    "RecordPurgedError",
    "RecordTooLargeError",
    "RecoveryReport",
    "RemoteStore",
    "Retention",
    "Scan",
    "Stage",
    "StaleKeyError",
    "Statistics",
    "Store",
    "StoreAlreadyOpenError",
    "StoreClosedError",
    "StoreFailedError",
    "StoreFullError",
    "StoreLockedError",
    "StoreUnavailableError",
    "SyncPolicy",
    "UnsupportedFormatError",
    "WrongLoopError",
    "is_label",
    "label",
    "label_text",
]

LEFT_OUT = [
    "aquipu.cli",
    "aquipu.remote.daemon",
    "aquipu.sync",
    "aquipu.postgres",
    "asyncpg",
    "typer",
    "click",
    "rich",
    "uuid",
    "importlib.metadata",
    "aiofiles",
]
LEFT_FOR_LATER = [
    f"aquipu.{room}"
    for room in (
        "reader",
        "local.read.catalog",
        "local.write.recovery",
        "local.check.inspect",
        "local.index.finder",
        "local.format.postings",
        "local.index.postings",
        "labels",
    )
]


def documented(value: object) -> str:
    """The docstring that somebody wrote; what a dataclass or a NamedTuple makes by itself does not
    count.
    """
    doc = (value.__doc__ if inspect.isfunction(value) else vars(value).get("__doc__")) or ""
    name = getattr(value, "__name__", "")
    return "" if doc.startswith(f"{name}(") else doc


def members_of(kind: type) -> dict[str, object]:
    """The methods and properties that a class offers its users, also those of the classes above."""
    return {
        f"{kind.__name__}.{name}": getattr(kind, name)
        for name, member in inspect.getmembers_static(kind)
        if not name.startswith("_") and (isinstance(member, property) or callable(member))
    }


def in_a_fresh_process(code: str) -> list[str]:
    """The words that a new interpreter prints, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return done.stdout.split()


def test_the_public_names() -> None:
    """These names are the face of the package: one more or less is a decision, also made here."""
    assert aquipu.__all__ == NAMES


def test_the_public_names_are_there() -> None:
    """Each of them can be imported with a star, and nothing else comes along."""
    words = in_a_fresh_process(
        "from aquipu import *; print(*sorted(name for name in dir() if name[0] != '_'))"
    )
    assert words == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_explained(name: str) -> None:
    """Each public name has a docstring that somebody wrote."""
    assert documented(getattr(aquipu, name))


def test_what_public_classes_offer_is_explained() -> None:
    """Each public method and property has a docstring, its own or that of the class above."""
    offered = {
        key: value for name in NAMES for key, value in members_of(getattr(aquipu, name)).items()
    }
    assert {
        "Store.append",
        "Store.open",
        "Store.recovery",
        "Scan.aclose",
        "EveryN.owes_sync",
    } <= set(offered)
    assert [key for key, value in offered.items() if not inspect.getdoc(value)] == []


def test_the_package_is_explained() -> None:
    """The package itself says what it is for."""
    assert "await store.append" in (aquipu.__doc__ or "")


def test_importing_loads_little() -> None:
    """``import aquipu`` loads neither the command line nor what is slow and not needed."""
    loaded = in_a_fresh_process("import sys, aquipu; print(*sys.modules)")
    assert "aquipu.store" in loaded
    assert [name for name in LEFT_OUT + LEFT_FOR_LATER if name in loaded] == []


def test_a_name_that_is_not_there() -> None:
    """Asking the package for it raises AttributeError, which names it; `hasattr` says no."""
    assert not hasattr(aquipu, "Writer")
    with pytest.raises(AttributeError, match="'aquipu' has no attribute 'Writer'"):
        aquipu.Writer  # type: ignore[attr-defined]  # noqa: B018


def test_the_package_says_that_it_is_typed() -> None:
    """Type checkers of those who use the package look for py.typed."""
    assert (Path(aquipu.__file__).parent / "py.typed").is_file()
