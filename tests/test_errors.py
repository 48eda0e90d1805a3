"""errors.py: the tree, its messages, and what becomes of an error that is copied or sent away."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable, Iterator

import pytest

from aquipu import errors
from aquipu.archive import errors as archive_errors
from aquipu.archive.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveRefusedError,
    ArchiveTakenError,
    ArchiveUnavailableError,
    NoArchiveError,
    NothingBeforeError,
)
from aquipu.errors import (
    AquipuError,
    BackupRefusedError,
    BatchTooLargeError,
    BufferFullError,
    ConflictError,
    CorruptionError,
    ForkedStoreError,
    IncompleteCopyError,
    NoSuchRecordError,
    NotAStoreError,
    OutcomeUnknownError,
    PositionLostError,
    RecordNotWrittenError,
    RecordPurgedError,
    RecordTooLargeError,
    StaleKeyError,
    StoreAlreadyOpenError,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
    StoreLockedError,
    StoreUnavailableError,
    UnsupportedFormatError,
    WrongLoopError,
    copy_error,
)

PATH = "/srv/audit"
SAMPLES: list[AquipuError] = [
    StoreUnavailableError(PATH, "open", "Permission denied"),
    NotAStoreError(PATH, "it is a file"),
    UnsupportedFormatError(PATH, "format version 9 is not known here"),
    CorruptionError(PATH, 4711, "the header of a frame does not check"),
    IncompleteCopyError(PATH, 4711, "whole are sequences 0 to 6"),
    StoreLockedError(PATH, 815),
    StoreAlreadyOpenError(PATH, 815),
    StoreLockedError(PATH, None),
    StoreClosedError(PATH),
    WrongLoopError(PATH),
    ForkedStoreError(PATH),
    StoreFailedError(PATH, "fdatasync: Input/output error"),
    StoreFullError(PATH, 42, "No space left on device"),
    OutcomeUnknownError(PATH, "it hung up"),
    ConflictError(PATH, 7, 9),
    StaleKeyError(PATH, 4711, 4720),
    PositionLostError(PATH, 12, 5),
    BackupRefusedError(PATH, "it holds another store"),
    BufferFullError(PATH, 65536, 123456),
    RecordTooLargeError(PATH, 1025, 1024),
    BatchTooLargeError(PATH, 70000, 7000000),
    NoSuchRecordError(PATH, 3, 7),
    RecordPurgedError(PATH, 3, 7),
    RecordNotWrittenError(PATH, 9, 7),
    ArchiveError(PATH, "it is one"),
    ArchiveUnavailableError(PATH, "it does not answer"),
    ArchiveRefusedError(PATH, "it is that of another store"),
    ArchiveTakenError(PATH, "another writer has put entry 7"),
    ArchiveDamagedError(PATH, "an object is missing"),
    NoArchiveError(PATH, "nothing is there"),
    NothingBeforeError(PATH, "its first record came later"),
]
RAISED = [
    sample
    for sample in SAMPLES
    if type(sample) not in (AquipuError, NoSuchRecordError, ArchiveError)
]  # these are there to be caught

# The second and the third part of every message: what was lost, and what to do next.
LOST = re.compile(
    r"(nothing (was (lost|changed|written)|else was lost"
    r"|of it is kept and nothing before it is lost)"
    r"|this call did nothing|this record was not taken|it was not taken|none was taken"
    r"|outcome unknown for what was not yet acknowledged)"
)
NEXT = re.compile(r"(append|ask|close|copy|end|free|give|mend|open|read|restore|split|wait)\b")


def every_class(root: type[AquipuError] = AquipuError) -> Iterator[type[AquipuError]]:
    yield root
    for kind in root.__subclasses__():
        yield from every_class(kind)


def tree_of_docstring() -> dict[str, tuple[str, ...]]:
    """Each class drawn in the docstring, with its bases: the one above, and the one in brackets."""
    drawn: dict[str, tuple[str, ...]] = {"AquipuError": ("Exception",)}
    above: dict[int, str] = {-1: "AquipuError"}
    for line in [*(errors.__doc__ or "").splitlines(), *drawn_of_archive()]:
        branch = re.match(r" {4}(?P<indent>(?:    |│   )*)[├└]── (?P<name>\w+)", line)
        if branch:
            depth = len(branch["indent"]) // 4
            also = re.search(r"\(also a (\w+)\)", line)
            drawn[branch["name"]] = (above[depth - 1], *([also[1]] if also else []))
            above[depth] = branch["name"]
    return drawn


def drawn_of_archive() -> list[str]:
    """The tree of the archive's errors, as a branch of the other one."""
    tree = (archive_errors.__doc__ or "").partition("::\n\n    ArchiveError\n")[2]
    return ["    ├── ArchiveError", *(f"    │   {line[4:]}" for line in tree.splitlines())]


def bases_of_classes() -> dict[str, tuple[str, ...]]:
    return {
        kind.__name__: tuple(
            base.__name__ for base in kind.__bases__ if not base.__name__.startswith("_")
        )
        for kind in every_class()
    }


def name_of(error: AquipuError) -> str:
    return f"{type(error).__name__}{error.args}"


by_sample = pytest.mark.parametrize("error", SAMPLES, ids=name_of)
by_raised = pytest.mark.parametrize("error", RAISED, ids=name_of)


def pickled(protocol: int) -> Callable[[AquipuError], AquipuError]:
    def there_and_back(error: AquipuError) -> AquipuError:
        again = pickle.loads(pickle.dumps(error, protocol))
        assert isinstance(again, AquipuError)
        return again

    return there_and_back


def test_the_docstring_draws_the_tree() -> None:
    """The tree in the docstring of the module is the tree of its classes, with every base."""
    assert tree_of_docstring() == bases_of_classes()


def test_each_class_has_a_sample_here() -> None:
    """A new class cannot stay outside of these tests."""
    assert {type(sample) for sample in SAMPLES} | {AquipuError} == set(every_class())


def test_each_class_stands_in_this_module_with_a_docstring_of_its_own() -> None:
    """Every class of the tree is defined in errors.py, or beside the archive, and says which
    situation it is.
    """
    for kind in every_class():
        assert kind.__module__ in ("aquipu.errors", "aquipu.archive.errors")
        assert vars(kind)["__doc__"]


@by_sample
def test_the_arguments_are_the_attributes(error: AquipuError) -> None:
    """Each argument of a class is an attribute of the same name."""
    bound = inspect.signature(type(error)).bind(*error.args)
    assert vars(error) == bound.arguments


@by_sample
@pytest.mark.parametrize(
    "duplicate",
    [
        copy_error,
        copy.copy,
        copy.deepcopy,
        *(
            pytest.param(pickled(number), id=f"pickle-{number}")
            for number in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_an_error_is_copied(
    error: AquipuError, duplicate: Callable[[AquipuError], AquipuError]
) -> None:
    """A copy is another object of the same class with its arguments, attributes and message."""
    other = duplicate(error)
    assert other is not error
    assert type(other) is type(error)
    assert (other.args, vars(other), str(other)) == (error.args, vars(error), str(error))


def test_a_copy_has_the_same_cause() -> None:
    """The OSError behind an error is the cause of each of its copies."""
    error = StoreFailedError(PATH, "fdatasync: Input/output error")
    error.__cause__ = OSError(5, "Input/output error")
    assert copy_error(error).__cause__ is error.__cause__
    assert copy_error(copy_error(error)).__cause__ is error.__cause__


def test_a_copy_collects_no_traceback_of_another() -> None:
    """What is raised in one waiter leaves no trace in the error of the next."""
    error = StoreClosedError(PATH)
    with pytest.raises(StoreClosedError) as caught:
        raise copy_error(error)
    assert caught.value.__traceback__ is not None
    assert error.__traceback__ is None
    assert copy_error(caught.value).__traceback__ is None


@by_raised
def test_a_message_names_every_argument(error: AquipuError) -> None:
    """The path, and each offset, sequence, size, reason and pid that is known, stands in the
    message.
    """
    assert PATH in error.args
    for argument in error.args:
        assert argument is None or str(argument) in str(error)


@by_raised
def test_a_message_says_what_was_lost_and_what_to_do(error: AquipuError) -> None:
    """A message has three parts: what happened; what was lost; what to do next."""
    parts = str(error).split("; ")
    assert len(parts) == 3, str(error)
    assert LOST.fullmatch(parts[1]), str(error)
    assert NEXT.match(parts[2]), str(error)


def test_the_holder_of_a_lock_is_unknown() -> None:
    """Without a pid the message still says that someone else writes the store."""
    assert "another process" in str(StoreLockedError(PATH, None))
    assert "process 815" in str(StoreLockedError(PATH, 815))


def test_a_failed_store_says_that_the_outcome_is_unknown() -> None:
    """After a failed sync nobody is told that a record is safe, or that it is lost."""
    assert "outcome unknown" in str(StoreFailedError(PATH, "fdatasync: Input/output error"))


@pytest.mark.parametrize("kind", list(every_class()))
def test_no_error_can_hold_data(kind: type[AquipuError]) -> None:
    """No class takes bytes: only places, counts and reasons, so no message can hold a record's
    data.
    """
    if kind is AquipuError:
        return
    parameters = inspect.signature(kind).parameters.values()
    assert {parameter.name for parameter in parameters} <= {
        *("path", "url", "action", "reason", "pid", "offset", "sequence", "bound"),
        *("records", "bytes", "size", "limit", "resume"),
        *("expected", "next_sequence", "number", "last"),
    }
    assert {parameter.annotation for parameter in parameters} <= {"str", "int", "int | None"}


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (RecordTooLargeError(PATH, 2, 1), ValueError),
        (BatchTooLargeError(PATH, 2, 1), ValueError),
        (RecordPurgedError(PATH, 3, 7), LookupError),
        (RecordNotWrittenError(PATH, 9, 7), LookupError),
    ],
    ids=name_of,
)
def test_an_error_is_also_what_python_would_raise(
    error: AquipuError, builtin: type[Exception]
) -> None:
    """Who catches the builtin exception of the situation catches the error of the tree."""
    assert isinstance(error, builtin)


@pytest.mark.parametrize(("name", "until"), [(f"{1400:020d}.segment", " --until 1400"), ("x", "")])
def test_damage_in_an_archive(name: str, until: str) -> None:
    """No file is there to be copied or repaired; what comes before can be restored."""
    said = str(CorruptionError(f"s3://bucket/audit/{name}", 64, "a frame does not check"))
    assert f"; restore what comes before (`aquipu restore URL DIR{until}`)" in said
    assert "aquipu repair" not in said
