"""Backups: a store copied to another directory while it is being written.

A backup is a store: `Store.open` and `Reader.open` take it, `aquipu verify` checks it, and to
restore is to copy it back or to open it where it is. What happens, in order:

==============  ==================================================================================
`backup`        reads the holds and cursors, then asks how far the log is acknowledged, and has that
                synced: so the store cannot lose, by a power cut, what its backup has
`destination`   checks the place, and locks it as a writer of the backup would; says what it holds
`plan`          decides, from what is here and what is there, which segments are copied (pure)
`segment_copy`  copies one segment, and checks what was copied, frame by frame
`pace`          keeps out of the way of the writer
==============  ==================================================================================

**A backup is a store at any moment**, also when it is cut short. Each segment comes to its place
whole and durable, in the order of the log, in place of an older copy that was not yet sealed. And
as a roll does, it first gives its successor its name: an empty segment, which is what an opening
finds of a roll that was cut short. So an interrupted backup is a shorter one, and the next one goes
on from it. What comes last is the manifest, which says how far the backup reaches.

**Incremental.** Sealed segments never change. One that is there, with the end and the check of the
last frame that this store's has, is not copied again; nor is any that the store has purged since
removed. The last segment is copied whole each time. When the store has sealed and purged it since,
and the backup has all its records, it is sealed in the backup as it was in the store: that is known
by the check of its last frame, which the next segment names.

**What it is a copy of.** The last record that the backup had must stand in what is copied over it,
at the same place and with the same check; or, if the segment was compressed since, be the same
record. If not, the two have gone on apart, and nothing is written. A backup that was opened by a
writer and closed again has marks, which hold no record: they do no harm.

**Generations.** The history comes along, with a mark that says nothing of how it was closed: so
that a writer of the backup begins a generation of its own, and consumers that have read further
than the backup reaches are told so.

**Shared blocks.** Where the file system can share blocks until one of two files is written to
(reflinks: btrfs, XFS), it does. With ``link``, sealed segments are the very files of the store,
under a second name. Both protect from a purge, and from a program that deletes files, but not from
a disk that fails; a link also not from what writes into a segment. A file that has a link is never
the last one with frames in its directory, because a writer goes on in that. So with ``link`` the
newest segments come first, and a backup that is cut short does not open until it is finished.

Not yet elegant: the last segment is copied once more, whole, by each backup.
"""
