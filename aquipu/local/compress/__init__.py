"""Sealed segments in fewer bytes: `Store.open(compress=True)`.

A segment that was sealed is read, and written anew with compressed frames (`blocks`, pure; the
format is that of `local.format.frame`). The new file takes the name of the old one in one step
(`segment`), so after a crash one of the two is there, and both hold the same records. It is done
beside the log, on the thread that builds label indexes, and nothing waits for it.

What knows a segment by its first sequence, by its last one, or by the check of its last frame finds
nothing changed: the label index, the segment behind it, a backup. Only the places of frames within
the file are others. So whoever keeps such a place asks an open file whether it is still the same
(`SegmentReader.plain_bytes`); a file that is open meanwhile stays as it was.
"""
