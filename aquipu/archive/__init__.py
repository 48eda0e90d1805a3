"""The archive: a log in an object store, carried there while it is being written.

==============  ==================================================================================
`archive`       `Archive`, the value that says where, and with which options
`format/`       pure: the names of objects (`keys`), numbered entries as bytes and back (`entry`),
                segments and parts of them (`pieces`), and what is put next (`plan`)
`bucket`        the only door to the object store, and what its answers are worth
`places/`       where an archive can be, other than in an object store: files of a directory
`fetch`         what an archive holds, read and checked: its entries, and what they name
`line`          the line of entries: claimed by one writer, gone on with
`log`           what is carried, whoever writes it; `agreement`: whether that is the same history
`uploader`      carries a log there, beside whatever writes it
`purge`         its oldest segments are let go of
`restore`       a store made of an archive
`check`         whether a store could be made of it
==============  ==================================================================================

**Two kinds of objects.** Each sealed segment is one object, never changed; its key says of which
store it is, its first and next sequence and its SHA-256. What has happened stands in the line of
numbered **entries**. An entry is a *fence*, with which a writer begins; a *young* part of the
segment that is being written; a *list* of all segments that are archived; or the *bookmarks*, holds
and cursors. Each of them says what is alive: the numbers of the last list and the last bookmarks,
and of the young parts since. So whoever reads the last entry, and those, knows all.

**One history.** An entry is put under the next number, and only if nothing has that number: of two
writers, one gets it. A writer that finds the entry of another at its next number has lost the
archive, and stops. Whoever begins puts a fence, which has a higher *epoch* than all before it; so
the last one that has begun goes on. What makes a segment part of the archive is the list that names
it, and that is an entry: a segment without is nothing but bytes.

**A purge claims nothing.** It is a list with fewer segments, put under the next number, of the same
epoch as the entry before: no writer but that of this epoch puts any other with it. The writer finds
it at its next number, takes it over, and goes on behind it. The objects are removed afterwards, by
the sequences in their names: all that end before the first one kept. The newest full segment is
never let go of: the next one is known by its last check.

**Nothing is believed in doubt.** "It exists already", a time-out, a cut connection: in each case
the object is read back. If it is what was to be put, it has been; if it is another's, that says so;
if there is none, it is put again, the same bytes under the same name. An answer that does not check
is asked for again. A listing may lag: from its last number on, entries are asked for by their
numbers.

**Young parts are folded.** One is put each second, if there is anything new. When eight are of
about one size, they are put again as one. So few are alive, and each byte travels a few times at
most. When the segment is sealed, its object takes the place of them all. If the log has purged it
by then, and all its records are archived, the object is made of them: the next segment names the
check of the frame with which it ended. Entries that nothing names any more are removed when they
are a hundred numbers old, and a minute after their place was taken: not before whoever reads has
had time, and not while a writer that was paused relies on them. Who takes longer finds them gone,
and reads the newest entry again.

**Synced first.** What goes up is on the disk: so the archive never has what the log can lose.

Not yet elegant: an object is put from memory, whole: a segment's size of memory for each upload.
"""
