"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import settings

_TESTS = Path(__file__).parent
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES_MIN = 1 << 30
_EXAMPLES, _EXAMPLES_OF_PROOF = 30, 100


def pytest_configure(config: pytest.Config) -> None:
    """Let Python keep what it compiles, also where the environment asks it not to.

    The suite starts hundreds of programs, and a worker for each half of a core or so: each of them
    would compile the package anew, which takes as long as all that they are started for.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    settings.register_profile("fast", max_examples=_EXAMPLES)
    settings.register_profile("proof", max_examples=_EXAMPLES_OF_PROOF)
    settings.load_profile("proof" if config.option.markexpr == "proof" else "fast")
    if config.option.markexpr == "not proof" and not config.option.basetemp:
        _keep_stores_in_memory()


def _keep_stores_in_memory() -> None:
    """Let the directories of tests stand in memory, where there is room and nobody has said where.

    A sync of a disk takes milliseconds, and longer where others use it; the suite makes tens of
    thousands, and none of its rules is about how a disk keeps what was synced. Those of the proof
    are, and its stores stand on the disk.
    """
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES_MIN:
        os.environ.setdefault("TMPDIR", str(_MEMORY))
        tempfile.tempdir = None


def pytest_xdist_auto_num_workers() -> int:
    """Three workers for two cores: what one of them waits for, the disk or a program that it
    started, leaves a core to another. More of them collect the tests more often than they gain.
    """
    return max(2, (os.cpu_count() or 1) * 3 // 2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Rules for any example belong to both: few examples in the fast suite, many in the proof."""
    if config.option.markexpr == "proof":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.proof)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Each worker compiles its share of the test files first, for the others as well.

    They all collect all tests, in one order: in a new checkout, each would compile all files.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is not None and session.config.args == session.config.getini("testpaths"):
        number = int(worker["workerid"].removeprefix("gw"))
        for file in sorted(_TESTS.rglob("test_*.py"))[number :: worker["workercount"]]:
            import_module(".".join(file.relative_to(_TESTS.parent).with_suffix("").parts))


@pytest.fixture(scope="module", autouse=True)
def _out_of_sight() -> None:
    """What is there before the tests of a file stays out of the sight of the garbage collector.

    Half a million objects of thousands of tests, of all that they import, and what frameworks and
    Hypothesis remember: many a test collects garbage, and would look through them for a tenth of a
    second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _postgresql(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[None]:
    """All workers of a run share a PostgreSQL, which the first one starts that needs it."""
    from tests.postgres import pair, server

    root = tmp_path_factory.getbasetemp()
    server.begin_session(root.parent if hasattr(request.config, "workerinput") else root)
    yield
    pair.end_session()
    server.end_session()


@pytest.fixture(scope="session", autouse=True)
def _heeded_signals() -> None:
    """The programs that tests start heed signals, also where the tests themselves were started to
    ignore them.

    What a process ignores, its children ignore as well: under nohup SIGHUP, in the background of a
    script SIGINT.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(
                number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test has logged may be no UTF-8; its report goes to another process, and must be."""
    report = yield
    report.sections = [(name, _utf8(text)) for name, text in report.sections]
    return report


def _utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
