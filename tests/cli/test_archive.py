"""archive, archive check and restore: a store carried to another place, and made again there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM
from subprocess import PIPE, Popen
from threading import Thread

import pytest

from aquipu import Store
from aquipu.archive.uploader import Progress
from aquipu.cli.commands.upkeep.archive import _ended
from aquipu.cli.telling import Waiting
from tests.cli.support import COMMAND, SAMPLE, run, well


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a few lines of a real log, in the working directory."""
    monkeypatch.chdir(tmp_path)
    well("append", "--raw", "store", input=SAMPLE)
    return tmp_path / "store"


@pytest.fixture
def url(store: Path) -> str:
    """Where its archive goes."""
    return f"file://{store.parent}/elsewhere"


def test_there_and_back(store: Path, url: str) -> None:
    """A store is carried to a place, checked there, lost, and restored."""
    lines = len(SAMPLE.splitlines())
    assert well("archive", "store", url).decode().startswith(f"archived before sequence {lines} at")
    assert well("archive", "check", url, "--store", "store").endswith(b"no damage\n")
    assert os.stat("elsewhere").st_mode & 0o077 == 0
    shutil.rmtree("store")
    said = well("restore", url, "store").decode()
    assert said.startswith(f"{lines} records, 0 to {lines - 1}, the last of 20")
    assert f", in {store}; " in said
    assert said.endswith(" MB/s; no damage\n")
    assert well("cat", "--raw", "store") == SAMPLE
    assert b"no damage" in well("verify", "store")
    assert json.loads(well("restore", url, "part", "--until", "1", "--json"))["next_sequence"] <= 1
    refused = run("restore", url, "old", "--until", "1 day ago")
    assert (refused.returncode, b"no record from before then" in refused.stderr) == (2, True)
    assert not os.path.exists("old")


def test_reading_it_where_it_is(url: str) -> None:
    """The commands that read a store read its archive."""
    well("archive", "store", url)
    assert well("cat", "--raw", url) == SAMPLE
    assert well("tail", "--raw", "-n", "1", url) == SAMPLE.splitlines(keepends=True)[-1]
    assert run("get", url, "1000").returncode == 2
    assert json.loads(well("top", url, "--json"))["acknowledged"] == len(SAMPLE.splitlines())
    for command in ("append", "info", "cursors", "doctor"):
        done = run(command, url, input=b"x")
        assert done.returncode == 2
        assert b"`aquipu archive check URL`" in b" ".join(done.stderr.split())


def test_a_file_of_what_it_holds(url: str) -> None:
    """An export of an archive goes into a file as that of a directory does."""
    well("archive", "store", url)
    well("export", url, "--format", "ndjson", "--output", "out.ndjson")
    assert len(Path("out.ndjson").read_bytes().splitlines()) == len(SAMPLE.splitlines())


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403)

    def do_PUT(self) -> None:
        self.send_error(403)

    def log_message(self, format: str, *words: object) -> None:
        """Log nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    """An object store at http:// that refuses each request: who gets that answer has reached it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


READING = [
    ("cat", "{}"),
    ("get", "{}", "0"),
    ("find", "{}", "label"),
    ("tail", "{}"),
    ("follow", "{}"),
    ("relations", "{}"),
    ("export", "{}", "--format", "csv"),
    ("top", "{}", "--json"),
    ("web", "{}"),
    ("copy", "{}", "postgresql://localhost/logs"),
    ("archive", "store", "{}"),
    ("archive", "check", "{}"),
    ("archive", "purge", "{}", "--before", "0"),
    ("restore", "{}", "copy"),
]
"""Each command that takes the place of an archive."""


@pytest.mark.parametrize("command", READING, ids=lambda command: "-".join(command[:2]))
@pytest.mark.parametrize("given", ["option", "environment"])
def test_an_endpoint(
    store: Path,
    endpoint: str,
    command: tuple[str, ...],
    given: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be at http://, and is given as an option of each command, or in the environment."""
    options = ["--option", "skip_signature=true"]
    if given == "option":
        options += ["--option", f"endpoint={endpoint}"]
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    done = run(*(one.format("s3://bucket/audit") for one in command), *options)
    assert done.returncode == 4
    assert b"no permission" in done.stderr


@pytest.mark.parametrize(
    "command", [one for one in READING if one[0] in ("archive", "restore", "cat", "relations")]
)
def test_an_object_store_that_is_away(store: Path, command: tuple[str, ...]) -> None:
    """Whoever waits for it is told so."""
    arguments = [one.format("s3://bucket/audit") for one in command]
    options = ["--option", "endpoint=http://127.0.0.1:1", "--option", "skip_signature=true"]
    with Popen([*COMMAND, *arguments, *options], stdout=PIPE, stderr=PIPE) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
        finally:
            process.kill()
    assert said.startswith(b"aquipu: the archive does not answer: ")
    assert said.endswith(b"; it is asked again\n")


def test_an_object_store_that_is_away_for_a_moment(capfd: pytest.CaptureFixture[str]) -> None:
    """Of less than a second nothing is said; of more once, and when it answers again."""
    now, heard = 0.0, []
    said = Waiting(lambda: now)
    for answers in (False, True, False, False, False, True, True):
        now += 0.5
        said(None if answers else "it is away")
        heard.append(capfd.readouterr().err)
    away = "aquipu: the archive does not answer: it is away; it is asked again\n"
    assert heard == ["", "", "", "", away, "aquipu: the archive answers again\n", ""]


@pytest.mark.parametrize("command", READING[:9], ids=lambda command: command[0])
def test_an_option_for_a_directory(store: Path, command: tuple[str, ...]) -> None:
    """Only an archive has options: with any other place they are a mistake."""
    done = run(*(one.format("store") for one in command), "--option", "region=x")
    assert done.returncode == 2
    assert b"only an archive has options" in done.stderr


@pytest.mark.parametrize("command", READING, ids=lambda command: "-".join(command[:2]))
def test_a_place_that_is_none(store: Path, command: tuple[str, ...]) -> None:
    """An address with a fault is a usage error of each command."""
    done = run(*(one.format("s3://bucket/audit?region=x") for one in command))
    assert done.returncode == 2
    assert b"options are given apart" in done.stderr


def test_a_cursor_of_an_archive(url: str) -> None:
    """An archive keeps none, which is one line."""
    well("archive", "store", url)
    done = run("follow", url, "--cursor", "c")
    assert done.returncode == 2
    assert b"keeps no cursor" in done.stderr


def test_their_objects(url: str) -> None:
    """The objects that --json prints have the documented fields."""
    put = json.loads(well("archive", "put", "store", url, "--json"))
    assert list(put) == ["url", "next_sequence"]
    checked = json.loads(well("archive", "check", url, "--json", "--all"))
    assert list(checked) == [
        *("url", "first_sequence", "next_sequence", "segments"),
        *("read", "compared", "bytes", "problems", "behind_records", "behind_seconds"),
    ]
    assert (checked["behind_records"], checked["behind_seconds"]) == (None, None)
    assert checked["problems"] == []
    purged = json.loads(well("archive", "purge", url, "--before", "5", "--dry-run", "--json"))
    assert list(purged) == [
        *("first_sequence_before", "first_sequence", "segments", "records", "bytes", "dry_run"),
    ]


def test_what_is_old_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In full segments, of which the newest stays; whoever asks for it is told."""

    async def fill() -> None:
        async with Store.open("store", max_segment_bytes=4096) as store:
            for _ in range(4):
                await store.append(bytes(4000))

    monkeypatch.chdir(tmp_path)
    asyncio.run(fill())
    url = f"file://{tmp_path}/elsewhere"
    well("archive", "store", url)
    purge = ("archive", "purge", url, "--before")
    begins = b"; %s begins at sequence " % url.encode()
    would = b"would go; %s would begin at sequence 2\n" % url.encode()
    assert well(*purge, "100", "--dry-run").endswith(would)
    assert well(*purge, "1d") == b"0 records in 0 full segments removed" + begins + b"0\n"
    assert well(*purge, "100") == b"2 records in 2 full segments removed" + begins + b"2\n"
    assert b"from 2 on" in well("archive", "check", url, "--all")
    done = run("restore", url, "copy", "--until", "1")
    assert done.returncode == 2
    assert b"it was purged" in done.stderr


@pytest.mark.parametrize("place", ["elsewhere", "elsewhere/copy", "link/copy"])
def test_a_store_within_the_archive(store: Path, url: str, place: str) -> None:
    """Nothing but objects may be in an archive: a restore into it is refused."""
    well("archive", "store", url)
    Path("link").symlink_to("elsewhere")
    before = set(Path("elsewhere").rglob("*"))
    done = run("restore", url, place)
    assert done.returncode == 2
    assert b"within the archive" in done.stderr
    assert set(Path("elsewhere").rglob("*")) == before


def test_damage_is_an_exit_code(store: Path, url: str) -> None:
    """What could not be restored is named, with exit code 1."""
    well("archive", "store", url)
    newest = max((store.parent / "elsewhere" / "entries").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    for command in (("archive", "check", url), ("restore", url, "copy")):
        done = run(*command)
        assert done.returncode == 1
        assert newest.name.encode() in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("archive", "store", "ftp://host/x"), 2, b"s3://, gs://, az://, file://"),
        (("archive", "store", "s3://key:secret@bucket/x"), 2, b"do not belong into the URL"),
        (("archive", "store", "file://{store}/within"), 2, b"it lies within the store"),
        (("archive", "nowhere", "file://{store}-archive"), 2, b"is no store"),
        (("archive", "unix:/run/x", "file://{store}-archive"), 2, b"is a daemon"),
        (("archive", "store", "file://{store}-x", "--option", "region"), 2, b"NAME=VALUE"),
        (
            ("archive", "store", "file://{store}-x", "--option", "secret=mine"),
            2,
            b"no option secret",
        ),
        (("archive", "store", "file://{store}-x", "--option", "nope=1"), 2, b"for --option: "),
        (("archive", "store", "file://{store}-x", "--interval", "0"), 2, b"for --interval: "),
        (("archive", "store", "s3://b/x", "--option", "secret=mine"), 4, b"is not valid"),
        (("archive", "check", "file://{store}-x"), 1, b"there is no archive there"),
        (("archive", "check", "file://{store}-x", "--max-lag", "1h"), 2, b"takes a --store"),
        (("restore", "file://{store}-x", "copy"), 2, b"is no archive"),
        (("restore", "file://{store}-x", "copy", "--until", "when"), 2, b"or a sequence, such as"),
        (("restore", "file://{store}-x", "s3://bucket/copy"), 2, b"is the place of an archive"),
        (("restore", "file://{store}-x", "postgresql://host/x"), 2, b"`aquipu copy`"),
        (("archive",), 2, b"Usage"),
    ],
)
def test_bad_arguments(store: Path, arguments: tuple[str, ...], code: int, words: bytes) -> None:
    """Each is one clear error, and nothing is made."""
    before = set(store.parent.iterdir())
    done = run(*(argument.format(store=store) for argument in arguments))
    assert done.returncode == code
    assert words in done.stderr + done.stdout
    assert b"mine" not in done.stderr
    assert set(store.parent.iterdir()) == before


def test_another_store(store: Path, url: str) -> None:
    """The archive of one store is no place for another one."""
    well("archive", "store", url)
    well("append", "--raw", "other", input=SAMPLE)
    done = run("archive", "other", url)
    assert done.returncode == 2
    assert b"it holds another store" in done.stderr


# check


def test_what_a_check_for_cron_ends_with(store: Path, url: str) -> None:
    """1 for what could not be restored or is not what the store has, 2 for a mistake."""
    check = ("archive", "check", url, "--store")
    well("archive", "store", url)
    well("append", "--raw", "other", input=SAMPLE)
    done = run(*check, "other")
    assert done.returncode == 1
    assert b"it is of another store, " in done.stdout
    assert b"another prefix" not in done.stdout + done.stderr
    done = run(*check, "nothing")
    assert done.returncode == 2
    assert b"is no store" in done.stderr
    done = run(*check, "store", "--max-lag", "soon")
    assert done.returncode == 2
    assert b"is no length of time" in done.stderr
    for entry in Path("elsewhere/entries").iterdir():
        entry.unlink()
    done = run(*check, "store")
    assert done.returncode == 1
    assert b"there is no archive there" in done.stderr


def test_how_far_it_is_behind(url: str) -> None:
    """A check with the store says how many records are not archived, and since when they wait."""
    check = ("archive", "check", url, "--store", "old")
    store_long_ago = ("import", "old", "-", "--time", ".ts")
    well(*store_long_ago, input=b'{"ts": "2019-05-01T08:00:00Z"}')
    well("archive", "old", url)
    said = well(*check, "--max-lag", "1s").decode()
    assert said.endswith("0 compared with the store; not behind the store; no damage\n")
    well(*store_long_ago, input=2 * b'{"ts": "2019-05-01T09:00:00Z"}\n')
    found = json.loads(well(*check, "--json"))
    assert found["behind_records"] == 2
    assert found["behind_seconds"] > 365 * 86_400
    assert b"; 2 records, " in well(*check)
    well(*check, "--max-lag", "100000w")
    done = run(*check, "--max-lag", "1h")
    assert done.returncode == 1
    assert b" behind the store, and may be 1h\n" in done.stdout
    done = run(*check, "--max-lag", "1h", "--json")
    assert len(json.loads(done.stdout)["problems"]) == 1


def test_a_gap_that_nothing_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that has purged what is not archived is a problem, though all is sound."""

    async def fill(purge: int | None) -> None:
        async with Store.open("store", max_segment_bytes=4096) as store:
            for _ in range(4):
                await store.append(bytes(4000))
            if purge is not None:
                await store.purge(before=purge)

    monkeypatch.chdir(tmp_path)
    asyncio.run(fill(None))
    url = f"file://{tmp_path}/elsewhere"
    well("archive", "store", url)
    well("archive", "check", url, "--store", "store")
    asyncio.run(fill(6))
    done = run("archive", "check", url, "--store", "store")
    assert done.returncode == 1
    assert b"the store has purged its records up to sequence" in done.stdout
    assert b"no damage" not in done.stdout


# follow


def test_following(store: Path, url: str) -> None:
    """With --follow it carries what comes, until it is told to end."""
    command = [sys.executable, "-m", "aquipu", "archive", str(store), url]
    with Popen([*command, "--follow", "--interval", "0.01"], stdout=PIPE) as process:
        try:
            well("append", "store", input=b"later\n")
            lines = len(SAMPLE.splitlines()) + 1
            while _archived(url) < lines:
                pass
        finally:
            process.send_signal(SIGTERM)
            said, _ = process.communicate()
    assert process.returncode == 0
    assert said.startswith(f"archived before sequence {lines} ".encode())


@pytest.mark.parametrize(("number", "code"), [(SIGTERM, 0), (SIGINT, 130), (SIGHUP, 129)])
def test_told_to_end(store: Path, url: str, number: int, code: int) -> None:
    """SIGTERM is how a follower is told to end: 0, as of serve; other signals are as of any."""
    command = [sys.executable, "-m", "aquipu", "archive", str(store), url, "--follow"]
    with Popen(command, stdout=PIPE) as process:
        while _archived(url) < len(SAMPLE.splitlines()):
            pass
        process.send_signal(number)
        said, _ = process.communicate()
    assert process.returncode == code
    assert said.startswith(b"archived before sequence ")


def test_told_to_end_with_something_left(store: Path, endpoint: str) -> None:
    """Where nothing was archived it does not say so, but how much is left, and why; exit code 4."""
    command = [sys.executable, "-m", "aquipu", "archive", str(store), "s3://bucket/audit"]
    options = ["--follow", "--option", f"endpoint={endpoint}", "--option", "skip_signature=true"]
    with Popen([*command, *options], stdout=PIPE, stderr=PIPE) as process:
        assert process.stderr is not None
        assert b"the archive does not answer: no permission" in process.stderr.readline()
        process.send_signal(SIGTERM)
        said, left = process.communicate()
    assert process.returncode == 4
    assert said == b""
    assert b"s3://bucket/audit has not answered: no permission" in left
    assert f"of {len(SAMPLE.splitlines())} records in the store".encode() in left


def test_how_a_follower_has_ended() -> None:
    """Records that are left are counted; a fault that has left none is none."""
    assert _ended("url", Progress(9, trouble="away"), SIGTERM, 0, 9).left is None
    left = _ended("url", Progress(3, trouble="away"), SIGTERM, 0, 9).left
    assert left is not None
    assert left.startswith("6 records of the store, from sequence 3 on, are not archived: away; ")


def _archived(url: str) -> int:
    done = run("archive", "check", url, "--json")
    return int(json.loads(done.stdout)["next_sequence"]) if done.returncode == 0 else 0
