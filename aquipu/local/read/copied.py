"""A directory that is a copy of a store, made file by file while the store was being written.

``cp -a``, ``rsync`` or ``tar`` list a directory, and then read one file after another, each of them
from its beginning to its end. So the files of the copy are of different moments, and so are the
parts of a file. These are the ways in which they do not fit each other:

* The last segment of the list was sealed before it was read: it has a footer, and the segment that
  must be behind it is not in the list. Small segments: that is what happens, a third of the time.
* The last segment grew while it was read: zeros where frames came a moment later, and then frames
  that came later still, which say that all before them had been synced.
* A purge came between: the manifest is from before it, and the first segments are gone.
* The store was closed meanwhile: the manifest says that more was synced than the last segment has.
* A segment in the middle is missing, or was still being written when it was read: the list itself
  was not of one moment.

Each of them is also what damage looks like, and what is missing is missing in any case. Nothing in
the bytes tells one from the other, but for one thing: **the page** (`progress_page`) names the file
that it stands in, by its inode, and a copy has another. And the page, which was copied as well,
says up to which record everything was acknowledged at the moment in which that was done. So:

* **A copy opens when it has all of that**, whole. What stands behind it is of a later moment, and
  no more than a part of that: a footer without a successor is removed, as that of a roll which was
  cut short, and frames behind zeros are a torn tail: kept aside, cut off, and reported. A purge
  that the page knows of has been.
* **Otherwise it is an IncompleteCopyError**, which is a CorruptionError: it names the damage, says
  that this is a copy and which records of it are whole.

**What that costs in the power to notice damage: nothing.** A page is believed only if the store had
not been closed, and the machine has not been started anew since: then no power was cut, and the
page of a store at rest says exactly how far it was acknowledged. A frame that a later one proves to
have been synced was acknowledged before that one was written: so damage that is proven lies below
what the page says, also in a copy, and is refused. So is a missing last segment, if it held
anything that was acknowledged. In a directory that is no copy, the page changes nothing.

A copy is a store of its own: its writer begins a generation, since the other one goes on in the
one that it was in (`generation`).

Not yet elegant: a file that gets another inode where it stands, on a file system that has no
inodes of its own, counts as a copy; and one that by chance has the same does not.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property

from aquipu.errors import AquipuError, CorruptionError, IncompleteCopyError
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.format.history import Ending, Mark
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import segment_name
from aquipu.local.format.structure import Damage
from aquipu.local.read.progress_reader import ProgressReader
from aquipu.local.read.segment_reader import SegmentReader, SegmentRef, read_footer, read_header
from aquipu.local.retain.history import read_mark_and_history

_NO_LIFE = bytes(16)


class Copied:
    """Whether a directory is such a copy, and what its page proves; asked only where need be."""

    def __init__(self, disk: Disk, path: str, manifest: Manifest) -> None:
        self._disk = disk
        self._path = path
        self._manifest = manifest

    @cached_property
    def _page(self) -> ProgressReader | None:
        """The page, if it was copied."""
        try:
            page = ProgressReader.open(self._disk, self._path, self._manifest.store_id)
        except (OSError, AquipuError):
            return None
        return page if page is not None and page.is_copied and page.read() is not None else None

    @cached_property
    def _mark(self) -> Mark | None:
        try:
            return read_mark_and_history(self._disk, self._path, self._manifest.store_id)[0]
        except (OSError, AquipuError, Damage):
            return None

    @cached_property
    def _acknowledged(self) -> int:
        """One past the last record that was acknowledged when the page was copied."""
        page = self._page
        said = page.read() if page is not None else None
        if page is None or said is None:
            return 0
        return max(said.acknowledged, page.acknowledging, page.acknowledged_before_failure)

    @property
    def _is_believed(self) -> bool:
        """Whether the page says exactly how far the store was acknowledged when it was copied."""
        page, mark, life = self._page, self._mark, self._disk.life()
        return (
            page is not None
            and page.is_recent
            and mark is not None
            and mark.ending is Ending.OPEN
            and mark.life == life != _NO_LIFE
        )

    def is_whole_before(self, sequence: int) -> bool:
        """Return whether all that was acknowledged lies before this sequence, as the page says."""
        return self._is_believed and self._acknowledged <= sequence

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record kept, as the page says; 0 when it is not believed."""
        said = self._page.read() if self._page is not None and self._is_believed else None
        return 0 if said is None else said.first_sequence

    def judged(self, error: CorruptionError) -> CorruptionError:
        """Return what to raise for this damage: it says so if the directory is such a copy."""
        page, mark, manifest = self._page, self._mark, self._manifest
        if page is None or isinstance(error, IncompleteCopyError):
            return error
        is_open = mark is not None and mark.ending is Ending.OPEN
        if not is_open and self._acknowledged >= manifest.synced_sequence:
            return error  # it was closed when it was copied
        until = self._whole_until()
        first = manifest.first_sequence
        whole = f"sequences {first} to {until - 1} are" if until > first else "nothing of it is"
        reason = f"{error.reason}, in a copy of a store that had not been closed: {whole} whole"
        return IncompleteCopyError(error.path, error.offset, reason)

    def _whole_until(self) -> int:
        """Return one past the last record before which nothing is missing."""
        sequence = self._manifest.first_sequence
        with suppress(OSError, AquipuError):
            while True:
                path = f"{self._path}/{segment_name(sequence)}"
                with opened(self._disk, path) as descriptor:
                    header = read_header(
                        self._disk, descriptor, path, self._manifest.store_id, sequence
                    )
                    footer = read_footer(self._disk, descriptor, path, header.seed)
                    if footer is None or footer.next_sequence == sequence:
                        ref = SegmentRef(sequence, path, header, None)
                        reader = SegmentReader(self._disk, ref, descriptor)
                        walk = reader.walk()
                        for _ in reader.frames(walk, reader.size):
                            pass
                        return walk.sequence
                    sequence = footer.next_sequence
        return sequence
