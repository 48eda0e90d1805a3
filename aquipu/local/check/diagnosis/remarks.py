"""What somebody should look at, and why. Pure: it goes by the facts alone."""

from __future__ import annotations

from collections.abc import Iterator

from aquipu.local.check.diagnosis.facts import (
    Diagnosis,
    IndexState,
    Remark,
    State,
    Weight,
)
from aquipu.local.check.diagnosis.file_systems import warning_about

_FREE_BYTES_MIN = 256 * 1024 * 1024
_OTHERS_WRITE = 0o002


def remarks_on(found: Diagnosis) -> tuple[Remark, ...]:
    """Return the remarks on a diagnosis, the weightiest first."""
    remarks = [
        *_about_damage(found),
        *_about_the_place(found),
        *_about_rights(found),
        *_about_bookmarks(found),
        *_about_files(found),
    ]
    order = list(Weight)
    return tuple(sorted(remarks, key=lambda remark: order.index(remark.weight)))


def _about_damage(found: Diagnosis) -> Iterator[Remark]:
    if found.copy:
        yield Remark(
            Weight.WARNING,
            "this is a copy of a store that was being written when it was made, by cp, rsync or a "
            "snapshot of files: what came later is missing; `aquipu backup STORE DEST` makes one "
            "that is whole",
        )
    if found.is_damaged:
        lost = sum(action.lost for action in found.repair)
        what = (
            f"it cannot be repaired here: {found.repair_refusal}; restore a backup"
            if found.repair_refusal is not None
            else f"copy the directory away, end whoever writes it, then run aquipu repair, which "
            f"loses {_counted(lost, 'record') if lost else 'no record'}"
            if found.repair
            else "aquipu repair says what can be saved, once nobody writes the store"
        )
        places = len(found.damages)
        which = "1 place does" if places == 1 else f"{places:,} places do"
        yield Remark(Weight.DAMAGE, f"{which} not check: {what}")
    torn = found.torn_tail
    if torn is not None:
        may = "some of them may have been acknowledged before they were synced"
        none = "none of them was acknowledged"
        held = (
            f"; it holds {_counted(torn.records, 'record')}, and "
            f"{may if torn.possibly_acknowledged else none}"
            if torn.records
            else ""
        )
        yield Remark(
            Weight.WARNING if torn.possibly_acknowledged else Weight.NOTE,
            f"a torn tail of {torn.bytes:,} bytes, as a crash leaves it: {torn.reason}, and no "
            f"later frame and no manifest says that it had been synced{held}",
        )


def _about_the_place(found: Diagnosis) -> Iterator[Remark]:
    place = found.place
    warning = warning_about(place.file_system)
    if warning is not None:
        yield Remark(Weight.WARNING, warning)
    largest = max((one.bytes for one in found.segments), default=0)
    if place.free_bytes is None:
        return
    if place.free_bytes < max(_FREE_BYTES_MIN, 2 * largest):
        yield Remark(
            Weight.WARNING,
            f"only {place.free_bytes:,} bytes are free here: appends are refused when none are "
            "left; purge, or give the store more room",
        )


def _about_rights(found: Diagnosis) -> Iterator[Remark]:
    modes = {one.mode for one in found.segments if one.mode}
    open_to_all = [mode for mode in (found.place.mode, *modes) if int(mode, 8) & _OTHERS_WRITE]
    if open_to_all:
        yield Remark(
            Weight.WARNING,
            f"every user may write here (mode {open_to_all[0]}): the log is no evidence then; "
            "chmod o-w",
        )
    if len(modes) > 1:
        yield Remark(
            Weight.NOTE,
            f"the segments have different rights ({', '.join(sorted(modes))}): a reader in the "
            "group may see a part of the log only",
        )


def _about_bookmarks(found: Diagnosis) -> Iterator[Remark]:
    if found.next_sequence is None:
        return
    for kind, ones in (("cursor", found.cursors), ("hold", found.holds)):
        for one in ones:
            if one.sequence > found.next_sequence:
                yield Remark(
                    Weight.WARNING,
                    f"the {kind} {one.name} is at sequence {one.sequence}, beyond the end of the "
                    f"log, {found.next_sequence}: records that it has seen are gone",
                )
            elif found.first_sequence is not None and one.sequence < found.first_sequence:
                yield Remark(
                    Weight.WARNING,
                    f"the {kind} {one.name} is at sequence {one.sequence}, which is purged: the "
                    f"log begins with {found.first_sequence}",
                )


def _about_files(found: Diagnosis) -> Iterator[Remark]:
    missing = sum(one.index is IndexState.MISSING for one in found.segments)
    if missing and found.writer is None:
        yield Remark(
            Weight.NOTE,
            f"{_counted(missing, 'sealed segment')} without a label index: searches read all of "
            "each; the next writer builds them, or aquipu index",
        )
    left = sum(one.state is State.LEFT_OVER for one in found.segments)
    if left and found.writer is None:
        yield Remark(Weight.NOTE, f"{_counted(left, 'segment')} left over from a purge")
    aside = [one for one in found.others if one.what == "kept aside"]
    if aside:
        size = sum(one.bytes for one in aside)
        yield Remark(
            Weight.NOTE,
            f"{_counted(len(aside), 'file')} of {size:,} bytes kept aside by an opening or a "
            f"repair ({aside[0].name}): look at them, then remove them",
        )
    unknown = [one for one in found.others if one.what == "unknown"]
    if unknown:
        yield Remark(
            Weight.NOTE,
            f"{_counted(len(unknown), 'file')} here that no store makes ({unknown[0].name}): they "
            "do no harm",
        )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
