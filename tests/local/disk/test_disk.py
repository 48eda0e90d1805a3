"""disk: the one door to the operating system, with real files; a system call is only replaced to
make it misbehave.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from aquipu.local.disk.disk import Disk

needs_synced_writes = pytest.mark.skipif(
    not hasattr(os, "RWF_DSYNC"), reason="this system has no write that syncs by itself"
)

Vector = Callable[[int, Sequence[bytes], int, int], int]
vector: Vector = os.pwritev


class Writes:
    """Stands in for os.pwritev: writes at most ``limit`` bytes a call, and notes the calls."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.buffers: list[int] = []
        self.flags: list[int] = []

    def __call__(
        self, descriptor: int, buffers: Sequence[bytes], offset: int, flags: int = 0
    ) -> int:
        self.buffers.append(len(buffers))
        self.flags.append(flags)
        return vector(descriptor, [b"".join(buffers)[: self.limit]], offset, 0)


def refusing(number: int) -> Vector:
    """Stands in for os.pwritev: writes nothing and raises this errno."""

    def pwritev(descriptor: int, buffers: Sequence[bytes], offset: int, flags: int = 0) -> int:
        raise OSError(number, os.strerror(number))

    return pwritev


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def file(disk: Disk, tmp_path: Path) -> Iterator[int]:
    """A new empty file, open for reading and writing."""
    descriptor = disk.create(str(tmp_path / "file"))
    yield descriptor
    disk.close(descriptor)


@pytest.fixture
def no_umask() -> Iterator[None]:
    """What a new file's mode is, is the disk's own choice."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# writing


def test_buffers_are_written_one_behind_another_at_the_offset(disk: Disk, file: int) -> None:
    """A write puts all of its buffers, in their order, from the offset on."""
    disk.write(file, [b"one", b"", b"three"], 4)
    assert disk.read(file, 100, 0) == b"\0\0\0\0onethree"


def test_no_buffers_at_all_are_written(disk: Disk, file: int) -> None:
    """Writing nothing is no error and no byte."""
    disk.write(file, [], 7)
    disk.write(file, [b""], 7)
    assert disk.size(file) == 0


@pytest.mark.parametrize("limit", [1, 3, 5, 8, 10, 11])
def test_a_short_write_is_continued(
    disk: Disk, file: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the system takes only a part, the rest is written from where it stopped."""
    monkeypatch.setattr(os, "pwritev", Writes(limit))
    disk.write(file, [b"first ", b"sec", b"ond"], 2)
    assert disk.read(file, 100, 0) == b"\0\0first second"


def test_a_short_write_among_thousands_of_buffers_is_continued(
    disk: Disk, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short write in one batch of buffers neither shifts nor repeats the next batch."""
    buffers = [b"%05d" % number for number in range(2500)]
    monkeypatch.setattr(os, "pwritev", Writes(3000))
    disk.write(file, buffers, 0)
    assert disk.read(file, 20_000, 0) == b"".join(buffers)


def test_more_buffers_than_one_system_call_takes(
    disk: Disk, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No system call is given more than 1024 buffers, and all of them are written."""
    writes = Writes(1 << 30)
    monkeypatch.setattr(os, "pwritev", writes)
    buffers = [b"%05d" % number for number in range(2500)]
    disk.write(file, buffers, 0)
    assert writes.buffers == [1024, 1024, 452]
    assert disk.read(file, 20_000, 0) == b"".join(buffers)


def test_thousands_of_buffers_without_a_substitute(disk: Disk, file: int) -> None:
    """The operating system itself takes the batches as they are made."""
    buffers = [bytes([number % 256]) for number in range(3000)]
    disk.write(file, buffers, 0)
    assert disk.read(file, 3000, 0) == b"".join(buffers)


def test_a_system_that_writes_nothing_and_says_nothing(
    disk: Disk, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write of 0 bytes without an error is an error of its own, and no endless loop."""
    monkeypatch.setattr(os, "pwritev", Writes(0))
    with pytest.raises(OSError, match="writes nothing") as caught:
        disk.write(file, [b"record"], 0)
    assert caught.value.errno == errno.EIO


def test_an_error_behind_a_short_write(
    disk: Disk, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that ends a write passes through as it is; what was written before it stays for the
    caller to cut.
    """
    writes, refuse = Writes(4), refusing(errno.ENOSPC)

    def pwritev(descriptor: int, buffers: Sequence[bytes], offset: int, flags: int = 0) -> int:
        return (refuse if writes.buffers else writes)(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "pwritev", pwritev)
    with pytest.raises(OSError, match="No space left") as caught:
        disk.write(file, [b"rec", b"ord"], 0)
    assert caught.value.errno == errno.ENOSPC
    assert disk.read(file, 100, 0) == b"reco"


# writing and syncing in one call


@needs_synced_writes
def test_a_synced_write_asks_for_it_in_every_call(
    disk: Disk, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each system call of a synced write carries RWF_DSYNC, also those after a short write."""
    writes = Writes(4000)
    monkeypatch.setattr(os, "pwritev", writes)
    buffers = [b"%05d" % number for number in range(2500)]
    assert disk.write_synced(file, buffers, 0)
    assert set(writes.flags) == {os.RWF_DSYNC}
    assert len(writes.flags) > 3
    assert disk.read(file, 20_000, 0) == b"".join(buffers)


@needs_synced_writes
def test_a_synced_write_without_a_substitute(disk: Disk, file: int) -> None:
    """Where the system offers it, the bytes are there; where it does not, it says so and there are
    none.
    """
    written = disk.write_synced(file, [b"a", b"b"], 0)
    assert disk.read(file, 10, 0) == (b"ab" if written else b"")


def test_a_plain_write_does_not_sync(
    disk: Disk, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that nobody asked to sync carries no flag."""
    writes = Writes(100)
    monkeypatch.setattr(os, "pwritev", writes)
    disk.write(file, [b"record"], 0)
    assert writes.flags == [0]


@needs_synced_writes
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_does_not_offer_synced_writes(
    disk: Disk, file: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False and no byte where it is not offered; it is asked once, and plain writes go on."""
    monkeypatch.setattr(os, "pwritev", refusing(number))
    assert not disk.write_synced(file, [b"record"], 0)
    writes = Writes(100)
    monkeypatch.setattr(os, "pwritev", writes)
    assert not disk.write_synced(file, [b"record"], 0)
    assert writes.flags == []
    assert disk.size(file) == 0
    disk.write(file, [b"record"], 0)
    assert disk.read(file, 100, 0) == b"record"


def test_a_system_without_synced_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without RWF_DSYNC (macOS) a synced write is refused, and nothing is written."""
    monkeypatch.delattr(os, "RWF_DSYNC", raising=False)
    disk = Disk()
    descriptor = disk.create(str(tmp_path / "file"))
    assert not disk.write_synced(descriptor, [b"record"], 0)
    assert disk.size(descriptor) == 0
    disk.close(descriptor)


@needs_synced_writes
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_synced_write_that_fails(
    disk: Disk, file: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is no refusal of the flag passes through, and the next synced write is tried
    again.
    """
    monkeypatch.setattr(os, "pwritev", refusing(number))
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        disk.write_synced(file, [b"record"], 0)
    assert caught.value.errno == number
    writes = Writes(100)
    monkeypatch.setattr(os, "pwritev", writes)
    assert disk.write_synced(file, [b"record"], 0)
    assert writes.flags == [os.RWF_DSYNC]


# reading


def test_reading_past_the_end(disk: Disk, file: int) -> None:
    """A read gives fewer bytes only where the file ends."""
    disk.write(file, [b"abcdef"], 0)
    assert disk.read(file, 100, 4) == b"ef"
    assert disk.read(file, 100, 6) == b""
    assert disk.read(file, 100, 60) == b""
    assert disk.read(file, 0, 0) == b""


def test_a_short_read_is_continued(disk: Disk, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system gives only a part, the rest is read from where it stopped."""
    disk.write(file, [b"abcdefghij"], 0)
    whole = os.pread
    monkeypatch.setattr(
        os, "pread", lambda descriptor, size, offset: whole(descriptor, min(size, 3), offset)
    )
    assert disk.read(file, 8, 1) == b"bcdefghi"
    assert disk.read(file, 100, 1) == b"bcdefghij"


def test_a_stream_reads_the_file_from_its_start(disk: Disk, file: int, tmp_path: Path) -> None:
    """open_stream gives the file as a binary object for reading."""
    disk.write(file, [b"abcdef"], 0)
    with disk.open_stream(str(tmp_path / "file")) as stream:
        assert stream.read(4) == b"abcd"
        assert not stream.writable()


def test_a_file_opened_for_reading(disk: Disk, file: int, tmp_path: Path) -> None:
    """Without asking for it, an opened file cannot be written."""
    for_reading = disk.open(str(tmp_path / "file"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.write(for_reading, [b"record"], 0)
    disk.close(for_reading)


def test_a_file_opened_for_writing_keeps_its_bytes(disk: Disk, file: int, tmp_path: Path) -> None:
    """Opening never empties a file."""
    disk.write(file, [b"abcdef"], 0)
    again = disk.open(str(tmp_path / "file"), writable=True)
    disk.write(again, [b"X"], 2)
    assert disk.read(again, 100, 0) == b"abXdef"
    disk.close(again)


# making things durable


def test_a_sync_is_an_fdatasync_of_the_file(
    disk: Disk, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sync reaches the operating system, once."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    disk.sync(file)
    assert synced == [file]


def test_a_sync_on_macos_empties_the_memory_of_the_drive(
    disk: Disk, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has F_FULLFSYNC, sync is that and no weaker call."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(
        fcntl, "fcntl", lambda descriptor, command: asked.append((descriptor, command))
    )
    disk.sync(file)
    assert asked == [(file, 51)]


def test_a_directory_is_synced_as_a_directory(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sync_directory is an fsync of the directory itself, and leaves nothing open."""
    synced: list[tuple[int, os.stat_result]] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append((descriptor, os.fstat(descriptor)))
    )
    disk.sync_directory(str(tmp_path))
    ((descriptor, status),) = synced
    assert os.path.samestat(status, tmp_path.stat())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_directory_whose_sync_fails(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error passes through, and the directory is not left open."""
    opened: list[int] = []

    def fsync(descriptor: int) -> None:
        opened.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        disk.sync_directory(str(tmp_path))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_a_file_is_no_directory(disk: Disk, file: int, tmp_path: Path) -> None:
    """sync_directory refuses a file, whose fsync would say nothing of any name."""
    with pytest.raises(NotADirectoryError):
        disk.sync_directory(str(tmp_path / "file"))


# directories and names


class NotesDirectories(Disk):
    """Notes which directories were synced, and what stood in them at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: list[tuple[str, list[str]]] = []

    def sync_directory(self, path: str) -> None:
        self.synced.append((path, sorted(self.list(path))))
        super().sync_directory(path)


def test_directories_are_made_durable_level_by_level(tmp_path: Path) -> None:
    """Each new directory is synced in the one above it, after it has been made and before there is
    anything in it.
    """
    disk = NotesDirectories()
    disk.make_directories(str(tmp_path / "a" / "b" / "c"))
    levels = [
        (str(tmp_path), ["a"]),
        (str(tmp_path / "a"), ["b"]),
        (str(tmp_path / "a" / "b"), ["c"]),
    ]
    assert disk.synced[-3:] == levels


def test_a_directory_in_one_that_exists(tmp_path: Path) -> None:
    """A path may end with a slash: the directory is made and synced all the same."""
    disk = NotesDirectories()
    disk.make_directories(f"{tmp_path}/a/")
    assert disk.synced[-1] == (str(tmp_path), ["a"])


def test_a_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path from the working directory is made there, and synced in it."""
    monkeypatch.chdir(tmp_path)
    disk = NotesDirectories()
    disk.make_directories("a/b")
    assert disk.synced[-2:] == [(str(tmp_path), ["a"]), (str(tmp_path / "a"), ["b"])]


@pytest.mark.usefixtures("no_umask")
def test_new_directories_are_for_their_owner_alone(disk: Disk, tmp_path: Path) -> None:
    """Every directory that is made has mode 0700, those above it too."""
    disk.make_directories(str(tmp_path / "a" / "b"))
    assert [mode_of(tmp_path / "a"), mode_of(tmp_path / "a" / "b")] == [0o700, 0o700]


@pytest.mark.usefixtures("no_umask")
def test_a_directory_that_exists_keeps_its_mode(disk: Disk, tmp_path: Path) -> None:
    """Making a directory below another one leaves that one's mode alone."""
    above = tmp_path / "above"
    above.mkdir(mode=0o755)
    disk.make_directories(str(above / "store"))
    assert mode_of(above) == 0o755


@pytest.mark.usefixtures("no_umask")
def test_new_files_are_for_their_owner_alone(disk: Disk, tmp_path: Path) -> None:
    """Files and locks are created with mode 0600."""
    disk.close(disk.create(str(tmp_path / "file")))
    lock = disk.try_lock(str(tmp_path / "lock"))
    assert lock is not None
    disk.close(lock)
    assert [mode_of(tmp_path / "file"), mode_of(tmp_path / "lock")] == [0o600, 0o600]


def test_creating_a_file_that_is_there(disk: Disk, file: int, tmp_path: Path) -> None:
    """A created file is empty, also when there was one of its name."""
    disk.write(file, [b"stale"], 0)
    again = disk.create(str(tmp_path / "file"))
    assert disk.size(again) == 0
    disk.close(again)


def test_names_are_listed_renamed_and_removed(disk: Disk, file: int, tmp_path: Path) -> None:
    """list, rename, remove and exists are what their names say."""
    path = str(tmp_path)
    disk.close(disk.create(f"{path}/other"))
    assert sorted(disk.list(path)) == ["file", "other"]
    disk.rename(f"{path}/file", f"{path}/other")
    assert disk.list(path) == ["other"]
    disk.remove(f"{path}/other")
    assert not disk.exists(f"{path}/other")


def test_a_link_to_nowhere_exists(disk: Disk, tmp_path: Path) -> None:
    """A name that leads nowhere is taken all the same: nothing is made in its place."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert disk.exists(str(tmp_path / "link"))


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.EBADF, errno.ESTALE])
def test_a_name_of_which_the_system_says_nothing(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """It is not taken for one that is missing: exists raises."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "stat", fails)
    with pytest.raises(OSError, match=os.strerror(error)):
        disk.exists(str(tmp_path))


@pytest.mark.parametrize("name", ["missing", "file/below", "x" * 300, "\0"])
def test_a_name_that_nothing_has(disk: Disk, file: int, tmp_path: Path, name: str) -> None:
    """A path that leads nowhere, for whatever reason, does not exist."""
    assert not disk.exists(f"{tmp_path}/{name}")


def test_a_file_is_cut_and_lengthened(disk: Disk, file: int) -> None:
    """truncate sets the size; what it adds is zeros."""
    disk.write(file, [b"abcdef"], 0)
    disk.truncate(file, 3)
    disk.truncate(file, 5)
    assert disk.read(file, 100, 0) == b"abc\0\0"


# descriptors and locks


def test_no_descriptor_is_inherited(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is started keeps no file of the store open: all are closed on exec."""
    path = str(tmp_path / "file")
    asked: list[int] = []
    system_open = os.open

    def noting(name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        asked.append(flags)
        return system_open(name, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", noting)
    lock = disk.try_lock(str(tmp_path / "lock"))
    assert lock is not None
    descriptors = [disk.create(path), disk.open(path), disk.open(path, writable=True), lock]
    with disk.open_stream(path) as stream:
        assert not any(map(os.get_inheritable, [*descriptors, stream.fileno()]))
    disk.sync_directory(str(tmp_path))
    assert len(asked) == 6
    assert all(flags & os.O_CLOEXEC for flags in asked)
    for descriptor in descriptors:
        disk.close(descriptor)


def test_one_lock_excludes_another(disk: Disk, tmp_path: Path) -> None:
    """A lock that is held is not given again; when its descriptor is closed, it is."""
    path = str(tmp_path / "lock")
    first = disk.try_lock(path)
    assert first is not None
    assert disk.try_lock(path) is None
    assert disk.try_lock(path, shared=True) is None
    disk.close(first)
    second = disk.try_lock(path)
    assert second is not None
    disk.close(second)


def test_shared_locks_go_together(disk: Disk, tmp_path: Path) -> None:
    """Shared locks exclude only one that wants the file whole."""
    path = str(tmp_path / "lock")
    disk.close(disk.create(path))
    shared = [disk.try_lock(path, shared=True), disk.try_lock(path, shared=True)]
    assert disk.try_lock(path) is None
    for descriptor in shared:
        assert descriptor is not None
        disk.close(descriptor)
    whole = disk.try_lock(path)
    assert whole is not None
    disk.close(whole)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can tell")
def test_a_page_is_shared_as_long_as_somebody_has_it(disk: Disk, tmp_path: Path) -> None:
    """Whoever asks is told whether somebody shares it, as often as it likes, and keeps nobody from
    doing so.
    """
    path = str(tmp_path / "shared")
    shared = disk.share(path, bytes(4096))
    assert (disk.is_shared(path), disk.is_shared(path)) == (True, True)
    again = disk.share(path, bytes(4096))
    disk.close(shared)
    disk.close(again)
    assert not disk.is_shared(path)
    shared = disk.share(path, bytes(4096))
    assert disk.is_shared(path)
    disk.close(shared)
    with pytest.raises(FileNotFoundError):
        disk.is_shared(str(tmp_path / "nothing"))


@pytest.mark.parametrize("refused", ["F_OFD_SETLK", "F_OFD_GETLK"])
def test_a_file_system_without_marks(
    disk: Disk, tmp_path: Path, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is shared all the same, and counts as shared for good where nobody can tell."""
    plain = fcntl.fcntl

    def refusing(descriptor: int, command: int, argument: int | bytes = 0) -> int | bytes:
        if command == getattr(fcntl, refused, None):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return plain(descriptor, command, argument)

    path = str(tmp_path / "shared")
    monkeypatch.setattr(fcntl, "fcntl", refusing)
    shared = disk.share(path, b"data")
    assert disk.read(shared, 9, 0) == b"data"
    assert disk.is_shared(path) is (refused == "F_OFD_GETLK")
    disk.close(shared)


def test_a_shared_lock_makes_no_file(disk: Disk, tmp_path: Path) -> None:
    """Who only reads changes nothing: without the file there is no shared lock."""
    with pytest.raises(FileNotFoundError):
        disk.try_lock(str(tmp_path / "lock"), shared=True)
    assert list(tmp_path.iterdir()) == []


def test_a_shared_lock_needs_no_right_to_write(disk: Disk, tmp_path: Path) -> None:
    """A shared lock opens the file for reading alone."""
    (tmp_path / "lock").touch()
    descriptor = disk.try_lock(str(tmp_path / "lock"), shared=True)
    assert descriptor is not None
    assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    disk.close(descriptor)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EWOULDBLOCK])
def test_a_lock_that_is_not_given_leaves_nothing_open(
    disk: Disk, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the lock is taken or cannot be had at all: the file is closed again."""
    opened: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        opened.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    if number == errno.ENOLCK:
        with pytest.raises(OSError, match=os.strerror(number)):
            disk.try_lock(str(tmp_path / "lock"))
    else:
        assert disk.try_lock(str(tmp_path / "lock")) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_a_lock_ends_with_its_process(disk: Disk, tmp_path: Path) -> None:
    """A process that is killed leaves its lock file behind, and no lock."""
    script = """
import sys
from aquipu.local.disk.disk import Disk
Disk().try_lock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""
    path = str(tmp_path / "lock")
    holder = subprocess.Popen(
        [sys.executable, "-c", script, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert disk.try_lock(path) is None
        holder.send_signal(signal.SIGKILL)
    lock = disk.try_lock(path)
    assert lock is not None
    disk.close(lock)


# holding a file


def test_a_file_that_is_held_is_not_removed(disk: Disk, tmp_path: Path) -> None:
    """Several may hold it; it goes when the last of them has let go."""
    path = tmp_path / "file"
    path.touch()
    readers = [disk.open(str(path)) for _ in range(2)]
    assert all(map(disk.try_hold, readers))
    assert not disk.try_remove(str(path))
    for reader in readers:
        assert path.exists()
        assert not disk.try_remove(str(path))
        disk.close(reader)
    assert disk.try_remove(str(path))
    assert not path.exists()


def test_a_file_that_is_removed_can_still_be_read(disk: Disk, tmp_path: Path) -> None:
    """Who has opened it and does not hold it keeps it from nothing, and reads on."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    reader = disk.open(str(path))
    assert disk.try_remove(str(path))
    assert disk.read(reader, 3, 0) == b"abc"
    assert disk.try_hold(reader)
    disk.close(reader)


def test_who_holds_alone(disk: Disk, tmp_path: Path) -> None:
    """One at a time, and nobody beside; a directory can be held as well as a file."""
    first, second = disk.open(str(tmp_path)), disk.open(str(tmp_path))
    assert disk.try_hold(first, exclusive=True)
    assert not disk.try_hold(second, exclusive=True)
    assert not disk.try_hold(second)
    disk.close(first)
    assert disk.try_hold(second)
    disk.close(second)


def test_a_removal_leaves_nothing_open(disk: Disk, tmp_path: Path) -> None:
    """Whether it removes, refuses or fails, the descriptor is closed."""
    path = tmp_path / "file"
    path.touch()
    reader = disk.open(str(path))
    disk.try_hold(reader)
    assert not disk.try_remove(str(path))
    disk.close(reader)
    assert disk.try_remove(str(path))
    with pytest.raises(FileNotFoundError):
        disk.try_remove(str(path))
    again = disk.open(str(tmp_path))
    assert again == reader, "the lowest number is free again"
    disk.close(again)
