"""Where an archive can be: its URL, and what is not in an object store.

==============  ==================================================================================
`address`       pure: the URL of an archive, and the directory that one of ``file://`` is
`hidden`        pure: what is never shown of how an object store is reached
`directory`     objects as files of a directory, by the calls of obstore that a `Bucket` makes
==============  ==================================================================================

**A file has its name when its bytes are on the disk.** An object is written under another name and
synced, then it is linked to its own, which nothing may have yet, and the directory is synced. So a
power cut takes nothing that was said to be put, and leaves no part of an object.

**What has the name may not be synced.** Another process may have been killed just before that, or
an earlier version has put it, which did not sync. So an object that is there with the same bytes is
replaced by the one that was written just now, and nothing is believed of the other.

**What is being written is held** (flock), as long as its process lives. So whoever begins to write
removes what killed ones have left, and nothing else.
"""
