"""export -o: whatever has that name keeps what it is, and nothing half stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from errno import EBUSY, EPERM, EROFS
from io import FileIO
from pathlib import Path

import pytest

from aquipu import Store
from aquipu.cli.streams import output
from tests.cli.support import COMMAND, in_shell, run, spawn, well
from tests.support import flip, segments_in

DATA = [b"%d\n" % number for number in range(100)]
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file to somebody else")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    async def fill() -> None:
        async with Store.open(tmp_path / "store") as store:
            await store.append_many(DATA)

    asyncio.run(fill())
    return tmp_path / "store"


@pytest.fixture
def whole(store: Path) -> bytes:
    """What an export writes."""
    return well("export", store, "--format", "ndjson")


def names_in(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def export_to(store: Path, target: Path | str) -> None:
    assert well("export", store, "--format", "ndjson", "-o", target) == b""


def test_a_new_file(store: Path, whole: bytes, tmp_path: Path) -> None:
    """It has the rights that any new file has here."""
    export_to(store, tmp_path / "records")
    (tmp_path / "any").touch()
    assert (tmp_path / "records").read_bytes() == whole
    assert (tmp_path / "records").stat().st_mode == (tmp_path / "any").stat().st_mode
    assert names_in(tmp_path) == ["any", "records", "store"]


def test_a_file_that_is_there(store: Path, whole: bytes, tmp_path: Path) -> None:
    """It is replaced by one of the same mode, and who reads the old one reads it to its end."""
    target = tmp_path / "records"
    target.write_text("old")
    target.chmod(0o640)
    with target.open() as reader:
        export_to(store, target)
        assert reader.read() == "old"
    assert target.read_bytes() == whole
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert names_in(tmp_path) == ["records", "store"]


@as_root
def test_the_file_of_somebody_else(store: Path, whole: bytes, tmp_path: Path) -> None:
    """It stays theirs, with its mode."""
    target = tmp_path / "records"
    target.touch()
    os.chown(target, 65534, 12345)
    target.chmod(0o4640)
    export_to(store, target)
    found = target.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 12345, 0o4640)
    assert target.read_bytes() == whole


def test_a_longer_name_than_any_with_an_ending(store: Path, whole: bytes, tmp_path: Path) -> None:
    """A name that has all the bytes that a name may have is as good as any."""
    target = tmp_path / ("x" * 255)
    export_to(store, target)
    assert target.read_bytes() == whole


def test_what_is_called_part_is_the_users(store: Path, tmp_path: Path) -> None:
    """No name that a user may have chosen is taken for the unfinished file."""
    (tmp_path / "records.part").write_text("mine")
    export_to(store, tmp_path / "records")
    assert (tmp_path / "records.part").read_text() == "mine"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_symbolic_link(store: Path, whole: bytes, tmp_path: Path, is_there: bool) -> None:
    """It stays one, and what it leads to is written, also when that was not there."""
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "records", tmp_path / "link"
    link.symlink_to("elsewhere/records")
    if is_there:
        target.write_text("old")
    export_to(store, link)
    assert link.readlink() == Path("elsewhere/records")
    assert target.read_bytes() == whole
    assert names_in(tmp_path) == ["elsewhere", "link", "store"]
    assert names_in(target.parent) == ["records"]


def test_links_in_a_circle(store: Path, tmp_path: Path) -> None:
    """They are an error of the output, in the words of the system."""
    (tmp_path / "link").symlink_to("link")
    done = run("export", store, "--format", "ndjson", "-o", tmp_path / "link")
    assert (done.returncode, b"Too many levels of symbolic links" in done.stderr) == (4, True)


def test_a_file_with_two_names(store: Path, whole: bytes, tmp_path: Path) -> None:
    """Both still name the same file, which has the export."""
    (tmp_path / "one").write_text("old " * 10_000)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    export_to(store, tmp_path / "two")
    assert (tmp_path / "one").samefile(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == whole


def test_a_file_with_attributes(store: Path, whole: bytes, tmp_path: Path) -> None:
    """Whatever a file has beside its mode, an access list for instance, it keeps."""
    target = tmp_path / "records"
    target.write_text("old")
    try:
        os.setxattr(target, "user.mine", b"value")
    except OSError:
        pytest.skip("the file system has no attributes")
    export_to(store, target)
    assert target.read_bytes() == whole
    assert os.getxattr(target, "user.mine") == b"value"


@pytest.mark.parametrize("error", [PermissionError(EPERM, "no"), OSError(EROFS, "no")])
def test_a_directory_in_which_nothing_can_be_made(
    store: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """A file in it that may be written is written; that there is no other is said with the path
    that was asked for.
    """
    target = tmp_path / "records"
    target.write_text("old " * 10_000)
    identity = target.stat().st_ino

    def refuse(file: object, mode: str = "rb") -> FileIO:
        if mode == "xb":
            raise error
        return FileIO(file, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(output, "FileIO", refuse)
    export_to(store, target)
    assert (target.read_bytes(), target.stat().st_ino) == (whole, identity)
    done = run("export", store, "--format", "ndjson", "-o", tmp_path / "new")
    assert (done.returncode, f"'{tmp_path}/new'" in done.stderr.decode()) == (4, True)
    assert names_in(tmp_path) == ["records", "store"]


def test_an_owner_that_cannot_be_kept(
    store: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written over instead: what is there stays somebody else's."""
    target = tmp_path / "records"
    target.write_text("old")
    identity = target.stat().st_ino

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(EPERM, "no")

    monkeypatch.setattr(Path, "chmod", refuse)
    export_to(store, target)
    assert (target.read_bytes(), target.stat().st_ino) == (whole, identity)
    assert names_in(tmp_path) == ["records", "store"]


def test_a_file_on_which_something_is_mounted(
    store: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that a container has been given cannot be replaced: it is written over."""
    target = tmp_path / "records"
    target.write_text("old " * 10_000)

    def refuse(path: Path, target: Path) -> None:
        raise OSError(EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", refuse)
    export_to(store, target)
    assert target.read_bytes() == whole
    assert names_in(tmp_path) == ["records", "store"]


@as_root
def test_a_device(store: Path, tmp_path: Path) -> None:
    """It takes the bytes, and stays a device."""
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no device can be made here")
    export_to(store, null)
    assert stat.S_ISCHR(null.stat().st_mode)
    assert names_in(tmp_path) == ["null", "store"]


def test_the_device_that_every_system_has(store: Path) -> None:
    export_to(store, "/dev/null")
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)


def test_a_full_device(store: Path) -> None:
    """What the system refuses is said with the path."""
    done = run("export", store, "--format", "ndjson", "-o", "/dev/full")
    assert (done.returncode, b"No space left on device: '/dev/full'" in done.stderr) == (4, True)


def test_a_pipe_with_a_name(store: Path, whole: bytes, tmp_path: Path) -> None:
    """Its reader gets the export, and it stays a pipe; as long as it has none, that is said."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [*COMMAND, "export", str(store), "--format", "ndjson", "-o", str(pipe)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert (
            process.stderr.readline()
            == b"aquipu: nobody reads %s yet; waiting for that\n" % os.fsencode(pipe)
        )
        assert pipe.read_bytes() == whole
        assert (process.wait(60), process.stderr.read()) == (0, b"100 records exported\n")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names_in(tmp_path) == ["pipe", "store"]


@pytest.mark.parametrize(
    "name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/1"]
)
def test_the_standard_output_by_its_name(store: Path, whole: bytes, name: str) -> None:
    """Each of its names is the descriptor, and the pipe that it is gets the export."""
    assert spawn("export", store, "--format", "ndjson", "-o", name).stdout == whole


def test_whatever_the_standard_output_is(store: Path, whole: bytes, tmp_path: Path) -> None:
    """A file that the shell appends to, and a socket, get the export, and nothing is replaced."""
    name = "/proc/self/fd/1"
    log = tmp_path / "log"
    log.write_text("before\n")
    done = in_shell(f'"$@" >> {log}', "export", store, "--format", "ndjson", "-o", name)
    assert (done.returncode, log.read_bytes()) == (0, b"before\n" + whole)
    here, there = socket.socketpair()
    with here, there:
        command = [*COMMAND, "export", str(store), "--format", "ndjson", "-o", name]
        assert (
            subprocess.run(
                command, stdout=there.fileno(), stderr=subprocess.DEVNULL, check=False
            ).returncode
            == 0
        )
        there.close()
        assert here.makefile("rb").read() == whole


def test_whoever_reads_has_had_enough(store: Path) -> None:
    """That is no error, by whatever name it is written to."""
    for target in ("/dev/stdout", "/dev/fd/1"):
        done = in_shell('"$@" | head -n 1', "export", store, "--format", "ndjson", "-o", target)
        assert (done.returncode, done.stdout.count(b"\n")) == (0, 1)


def test_a_descriptor_that_is_not_open(store: Path) -> None:
    done = in_shell('"$@" 9>&-', "export", store, "--format", "ndjson", "-o", "/dev/fd/9")
    assert (done.returncode, b"/dev/fd/9" in done.stderr) == (4, True)


def test_a_directory(store: Path, tmp_path: Path) -> None:
    """It is said at once, and nothing is left in it or beside it."""
    (tmp_path / "directory").mkdir()
    done = run("export", store, "--format", "ndjson", "-o", tmp_path / "directory")
    assert (done.returncode, b"it is a directory" in done.stderr, b"exported" in done.stderr) == (
        4,
        True,
        False,
    )
    assert names_in(tmp_path) == ["directory", "store"]
    assert names_in(tmp_path / "directory") == []


def test_the_store_itself(store: Path, tmp_path: Path) -> None:
    """What lies in the store, by whatever name, is not written over: a usage error, and the store
    is whole.
    """
    (tmp_path / "link").symlink_to(segments_in(store)[0])
    (tmp_path / "other").hardlink_to(segments_in(store)[0])
    before = {file: file.read_bytes() for file in store.iterdir()}
    for target in (
        store / "new",
        segments_in(store)[0],
        tmp_path / "link",
        tmp_path / "other",
        store,
    ):
        done = run("export", store, "--format", "ndjson", "-o", target)
        assert (done.returncode, b"--output" in done.stderr) == (2, True)
    assert {file: file.read_bytes() for file in store.iterdir()} == before


def test_an_export_into_nowhere(store: Path, tmp_path: Path) -> None:
    """A directory that is not there is an error of the output, with the path that was asked for."""
    done = run("export", store, "--format", "csv", "-o", tmp_path / "no" / "file.csv")
    assert done.returncode == 4
    assert f"No such file or directory: '{tmp_path}/no/file.csv'" in done.stderr.decode()


@pytest.mark.parametrize("linked", [False, True], ids=["replaced", "copied"])
@pytest.mark.parametrize("format", ["ndjson", "csv", "parquet"])
def test_an_export_that_fails_leaves_the_old_file(
    store: Path, tmp_path: Path, format: str, linked: bool
) -> None:
    """Damage is said, and half an export takes no place."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    target = tmp_path / "records"
    target.write_text("old")
    if linked:
        (tmp_path / "link").hardlink_to(target)
    flip(segments_in(store)[0], 130)
    done = run("export", store, "--format", format, "-o", target)
    assert done.returncode == 1
    assert target.read_text() == "old"
    assert names_in(tmp_path) == [*(["link"] if linked else []), "records", "store"]


ENDLESS = """
import asyncio
from pathlib import Path
from aquipu.__main__ import main
from aquipu.cli.forms import exporter as export
async def endless(*_):
    Path({mark!r}).write_bytes(b"begun")
    await asyncio.sleep(3600)
export.drain = endless
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(
    store: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The unfinished file goes, what was there stays, and the exit code is a shell's."""
    target, mark = tmp_path / "records", tmp_path / "mark"
    target.write_text("old")
    os.mkfifo(mark)
    script = ENDLESS.format(mark=str(mark))
    command = [
        sys.executable,
        "-c",
        script,
        "export",
        str(store),
        "--format",
        "ndjson",
        "-o",
        str(target),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        mark.read_bytes()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (128 + number, b"")
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["mark", "records", "store"]


def test_several_exports_into_the_same_file(store: Path, whole: bytes, tmp_path: Path) -> None:
    """Each writes a file of its own, and one of them is there at the end, whole."""
    command = [
        *COMMAND,
        "export",
        str(store),
        "--format",
        "ndjson",
        "-o",
        str(tmp_path / "records"),
    ]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "records").read_bytes() == whole
    assert names_in(tmp_path) == ["records", "store"]
