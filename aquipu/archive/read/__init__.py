"""Reading an archive without restoring it.

==============  ==================================================================================
`cache`         bytes of objects that were fetched, as many as there is room for (pure)
`files`         a disk, for reading alone, whose files are objects: so whatever reads a log reads
                an archive, by the same calls
`log`           what an archive holds now, as a snapshot of a log
`young`         the segment that was being written, of which a look reads only what is new
`reader`        the face of it: what `Reader.open` gives for the place of an archive
`joined`        a log and its archive as one: what was purged is read there
==============  ==================================================================================

**Requests.** One takes as long as a megabyte or more, so each fetches more than was asked for: an
object that is small, all of it; of a larger one a megabyte, and twice as much each time that it is
read on from there. What was fetched is kept, up to a bound. To open an archive takes a listing, the
last entry, the list of segments and the young parts; no segment is looked into. A later look reads
the list only if it is another, and of the young parts those that are new.
"""
