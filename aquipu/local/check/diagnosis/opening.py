"""What opening a store would do, in sentences. Pure: it goes by what an examination has found."""

from __future__ import annotations

from collections.abc import Iterator

from aquipu.local.format.names import cut_name, segment_name
from aquipu.local.read.examine import Findings


def steps_of(findings: Findings, *, begins_generation: bool) -> Iterator[str]:
    """Yield what opening would do about what was found, in its order.

    ``begins_generation``: whether acknowledged records may be gone.
    """
    active, contents = segment_name(findings.active.first_sequence), findings.contents
    if findings.is_purged:
        yield (
            "write the manifest anew: the log begins with sequence "
            f"{findings.manifest.first_sequence}, as a purge of the time of the copy says"
        )
    unfinished = [*findings.unnamed, *findings.bookmarks]
    if unfinished:
        yield f"remove {_files(len(unfinished))} that a writer did not finish"
    torn = findings.torn
    if torn is not None:
        kept = cut_name(findings.active.first_sequence, torn.offset)
        yield (
            f"cut {torn.size:,} bytes off {active} from offset {torn.offset:,} on, and keep them "
            f"in {kept}"
        )
    if not findings.is_proven:
        unproven = contents.end - contents.unproven_from(findings.watermark)
        yield (
            f"write the last {unproven:,} bytes of frames once more and sync them, because nothing "
            "proves yet that they are on the disk; no record of them is lost"
        )
    if findings.empty_successor is not None:
        yield (
            f"remove {findings.empty_successor}, which a roll left without a record, and go on in "
            f"{active}"
        )
    if findings.left_over:
        yield f"delete {_files(len(findings.left_over))} left over from a purge"
    if begins_generation:
        yield (
            "begin a new generation: records that were acknowledged may be gone, and consumers "
            f"that have read beyond sequence {contents.next_sequence - 1} are told so"
            if contents.next_sequence
            else "begin a new generation: records that were acknowledged may be gone"
        )


def _files(number: int) -> str:
    return "a file" if number == 1 else f"{number:,} files"
