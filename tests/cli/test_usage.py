"""app and main: usage, locks, and what is installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from aquipu import Always, EveryN, NotAStoreError, OsManaged, SyncPolicy
from aquipu.cli.app import Purpose
from aquipu.cli.arguments import sync_policy_of
from aquipu.cli.streams.console import say_to_people
from aquipu.cli.waiting import _say_waiting
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock
from tests.cli.support import (
    COMMAND,
    COMMANDS,
    ENVIRONMENT,
    JSON_READING,
    READING,
    SAMPLE,
    run,
    spawn,
    terminal,
    well,
)
from tests.support import snapshot

# locks


def test_appending_to_a_store_that_is_being_written(store: Path) -> None:
    """append waits for the lock as long as it was told, and then says who holds it."""
    lock = Lock.take(Disk(), str(store))
    assert lock is not None
    done = spawn("append", "--raw", store, "--lock-timeout", "0", input=b"more\n")
    lock.release()
    assert done.returncode == 3
    assert f"is in use by process {os.getpid()};" in done.stderr.decode()
    assert well("cat", "--raw", store) == SAMPLE


@pytest.mark.parametrize(("seconds", "code"), [("0", 3), ("30", 0)])
def test_how_long_append_waits_for_the_lock(
    store: Path, monkeypatch: pytest.MonkeyPatch, seconds: str, code: int
) -> None:
    """With no time to wait it tries once; with some it has the store as soon as that is free."""
    lock = Lock.take(Disk(), str(store))
    assert lock is not None
    try_lock_directory = Disk.try_lock_directory

    def freed_after_the_first(disk: Disk, path: str, *, shared: bool = False) -> int | None:
        descriptor = try_lock_directory(disk, path, shared=shared)
        lock.release()
        return descriptor

    monkeypatch.setattr(Disk, "try_lock_directory", freed_after_the_first)
    assert (
        run("append", "--raw", store, "--lock-timeout", seconds, input=b"more\n").returncode == code
    )


@pytest.mark.parametrize("command", ["append", "serve"])
def test_waiting_for_the_lock_is_said_on_a_terminal(store: Path, command: str) -> None:
    """For whom it waits, and for how long; Ctrl-C ends it."""
    options = ["--socket", f"{store}.sock"] if command == "serve" else []
    lock = Lock.take(Disk(), str(store))
    assert lock is not None
    with terminal() as (screen, near):
        process = subprocess.Popen(
            [*COMMAND, command, str(store), *options],
            stdin=subprocess.DEVNULL,
            stderr=near,
            env=ENVIRONMENT,
        )
        os.close(near)
        try:
            screen.wait_for(f"is in use by process {os.getpid()}; waiting for up to 20 s".encode())
            lock.release()
            screen.wait_for(b"appended, last sequence 39" if command == "append" else b"is served")
        finally:
            process.terminate()
            process.wait(60)


def test_an_opening_that_takes_long_is_no_waiting(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then this process has the lock, and reads; where nobody looks, nothing is said."""
    said: list[str] = []
    monkeypatch.setattr("aquipu.cli.waiting.say_to_people", said.append)
    _say_waiting("unix:/run/a.sock", 2.0)
    _say_waiting(str(store), 20.0)
    assert said == [
        "aquipu: nobody answers at unix:/run/a.sock yet; waiting for up to 2 s; Ctrl-C ends it",
        f"aquipu: {store} is being opened: the end of its log is read first",
    ]
    say_to_people("nobody looks")
    assert capsys.readouterr().err == ""


def test_readers_do_not_exclude_each_other(store: Path) -> None:
    """The lock of a reader is shared: others read, and nobody writes meanwhile."""
    lock = Lock.take(Disk(), str(store), shared=True)
    assert lock is not None
    assert well("cat", "--raw", store) == SAMPLE
    assert run("append", "--raw", store, "--lock-timeout", "0", input=b"more\n").returncode == 3
    lock.release()
    assert run("append", "--raw", store, "--lock-timeout", "0", input=b"more\n").returncode == 0


# usage


@pytest.mark.parametrize("command", READING)
def test_nothing_of_that_name(tmp_path: Path, command: str) -> None:
    """Reading makes no store where there is none."""
    done = run(command, tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, b"")
    assert (
        done.stderr
        == f"aquipu: {NotAStoreError(str(tmp_path / 'nowhere'), 'there is nothing of this name')}"
        "\n".encode()
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", READING)
def test_an_empty_directory_is_no_store(tmp_path: Path, command: str) -> None:
    """It is said, and the directory stays empty."""
    done = run(command, tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert (
        done.stderr
        == f"aquipu: {NotAStoreError(str(tmp_path), 'the directory holds none')}\n".encode()
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["append", *READING])
def test_a_file_as_the_store(tmp_path: Path, command: str) -> None:
    """A file is refused and stays as it is."""
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    done = run(command, file, input=b"more\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"aquipu: {file} is no store: it is a file" in done.stderr.decode()
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize("command", ["append", *READING])
def test_a_directory_that_holds_something_else(tmp_path: Path, command: str) -> None:
    """Nothing is written into a directory that is somebody else's."""
    (tmp_path / "letter.txt").write_bytes(b"mine")
    before = snapshot(tmp_path)
    done = run(command, tmp_path, input=b"more\n")
    assert (done.returncode, done.stdout) == (2, b"")
    if command != "cat":  # who only reads does not mind what else is there
        assert "the directory holds other things, 'letter.txt' among them" in done.stderr.decode()
    assert f"aquipu: {tmp_path} is no store: ".encode() in done.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no-command"),
        pytest.param(["erase"], id="unknown-command"),
        pytest.param(["append"], id="no-store"),
        pytest.param(["cat", "one", "two"], id="two-stores"),
        pytest.param(["info", "store", "--yaml"], id="unknown-option"),
        pytest.param(["append", "store", "--lock-timeout", "-1"], id="negative-time"),
        pytest.param(["append", "store", "--lock-timeout", "nan"], id="time-that-is-no-number"),
        pytest.param(["append", "store", "--sync-policy", "every:0"], id="policy-that-cannot-be"),
        pytest.param(["append", "store", "--relation", ""], id="empty-label"),
        pytest.param(
            ["append", "store", "--relation", "a\nb"], id="label-with-a-control-character"
        ),
        pytest.param(["find", "store"], id="no-label"),
        pytest.param(["export", "store"], id="no-format"),
        pytest.param(["export", "store", "--format", "xml"], id="unknown-format"),
        pytest.param(["purge", "store"], id="no-bound"),
        pytest.param(["purge", "store", "--before", "-1"], id="negative-bound"),
        pytest.param(["purge", "store", "--before", "soon"], id="bound-that-is-no-time"),
        pytest.param(["cat", "store", "--raw", "--json"], id="two-forms"),
        pytest.param(["follow", "store", "--start", "1", "--since", "1h"], id="two-beginnings"),
        pytest.param(["hold", "store", "a/b"], id="name-with-a-slash"),
        pytest.param(["hold", "store", "--release"], id="no-name-to-release"),
        pytest.param(["hold", "store", "name", "5", "--release"], id="release-with-a-sequence"),
        pytest.param(["hold", "store", "name", "-5"], id="negative-sequence"),
    ],
)
def test_arguments_that_make_no_sense(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad argument is a usage error: exit code 2, help on standard error, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    done = run(*arguments, input=b"more\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Usage: aquipu" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("always", Always()),
        ("os", OsManaged()),
        ("every:1", EveryN(1)),
        ("every:64", EveryN(64, within=1.0)),
        ("every:64/0.5", EveryN(64, within=0.5)),
        ("every:8/30", EveryN(8, within=30.0)),
        ("every:8/none", EveryN(8, within=None)),
    ],
)
def test_a_policy_is_what_its_text_says(text: str, policy: SyncPolicy) -> None:
    """The texts of --sync-policy stand for the policies of the package."""
    assert sync_policy_of(text) == policy


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "never",
            "every",
            "every:",
            "every:0",
            "every:-1",
            "every:six",
            "every:6_4",
            "every:٦",
            "every:64/",
        ),
        *(
            "every:64/0",
            "every:64/-1",
            "every:64/nan",
            "every:64/1s",
            " always",
            "ALWAYS",
            "every:64\n",
        ),
        pytest.param("every:" + "9" * 5000, id="beyond-all-numbers"),
        pytest.param("every:1/" + "9" * 400, id="for-ever"),
    ],
)
def test_a_text_that_is_no_policy(text: str) -> None:
    """Whatever else stands there is a usage error."""
    with pytest.raises(typer.BadParameter):
        sync_policy_of(text)


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_help_tells_the_exit_codes(command: list[str]) -> None:
    """The exit codes stand in every help."""
    text = well(*command, "--help").decode()
    assert "Exit codes:" in text
    for line in (
        "0    well",
        "1    damage found",
        "2    usage",
        "3    locked",
        "4    an input/output error",
    ):
        assert line in text


@pytest.mark.parametrize("command", JSON_READING)
def test_help_tells_the_fields_of_the_json_object(store: Path, command: str) -> None:
    """What --json prints is documented field by field."""
    text = well(command, "--help").decode()
    for field in json.loads(well(command, store, "--json")):
        assert f"\n    {field} " in text


def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    """A name that is no UTF-8 comes out as the bytes that it is; in JSON they are shown."""
    path = tmp_path / os.fsdecode(b"st\xf6re")
    well("append", "--raw", path, input=SAMPLE)
    assert well("info", path).splitlines()[0].endswith(b"/st\xf6re")
    assert json.loads(well("info", path, "--json"))["path"] == f"{tmp_path}/st\\xf6re"


# installation

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if {missing!r} in (name, name.partition(".")[0]):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
sys.argv[0] = "aquipu"
from aquipu.__main__ import main
main()
"""


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_packages_of_the_extra(missing: str) -> None:
    """One line says what to install; that is a usage error and no traceback."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER.format(missing=missing)], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert (
        done.stderr
        == f"aquipu: the command line needs {missing}, which is not installed: "
        "in the checkout of aquipu, pip install -e '.[cli]'\n".encode()
    )


def test_a_missing_module_of_another_kind_is_not_hidden() -> None:
    """What is not of the extra is a broken installation, and must be seen whole."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER.format(missing="aquipu.cli")],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"No module named 'aquipu.cli'" in done.stderr


def test_the_engine_does_not_load_the_command_line() -> None:
    """Who imports aquipu pays nothing for typer and rich, and does not need them."""
    code = (
        "import sys, aquipu; print(sorted({'typer', 'rich', 'click', 'aquipu.cli'}"
        " & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        == b"[]\n"
    )


def test_the_command_is_installed(store: Path) -> None:
    """`aquipu` is the same as `python -m aquipu`."""
    script = Path(sys.executable).parent / "aquipu"
    assert (
        subprocess.run([script, "cat", "--raw", store], capture_output=True, check=True).stdout
        == SAMPLE
    )


@pytest.mark.parametrize(
    "command",
    [
        *(("append", ""), ("cat", ""), ("info", ""), ("verify", ""), ("doctor", ""), ("hold", "")),
        *(("purge", "", "--before", "0"), ("cursors", ""), ("tail", ""), ("top", "", "--json")),
        *(("backup", "", "copy"), ("serve", "", "--socket", "socket"), ("repair", ""), ("web", "")),
        *(("archive", "", "file:///archive"), ("index", ""), ("bench", "")),
    ],
    ids=lambda command: command[0],
)
def test_no_name(store: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty text, as of a variable that is not set, is not the directory one is in."""
    monkeypatch.chdir(store)
    done = run(*command, input=b"x\n")
    assert done.returncode == 2
    assert b"no path of a directory" in done.stderr


# the program


def test_the_version() -> None:
    """It is that of the package."""
    assert well("--version") == f"aquipu {version('aquipu')}\n".encode()


def test_every_command_is_listed_by_what_it_is_for() -> None:
    """Each stands once in the help, below a heading, with a sentence that fits the line."""
    text = well("--help").decode()
    listed = re.findall(r"^  ([a-z]+)  +[A-Z]", text, re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    narrow = subprocess.run(
        [*COMMAND, "--help"], env=ENVIRONMENT | {"COLUMNS": "80"}, capture_output=True, check=True
    ).stdout.decode()
    assert "..." not in narrow.replace("[ARGS]...", "")
    for heading in Purpose:
        assert f"\n{heading.value}:\n" in narrow


def test_the_shell_completes_commands() -> None:
    """The script for a shell asks the program, and that answers."""
    asked = {"_AQUIPU_COMPLETE": "complete_bash", "COMP_WORDS": "aquipu fo", "COMP_CWORD": "1"}
    done = subprocess.run([*COMMAND], env=ENVIRONMENT | asked, capture_output=True, check=False)
    assert done.stdout.split() == [b"follow"]
