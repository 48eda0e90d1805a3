"""What stands on the disk of a store, and what opening it would do: seen, and not touched.

==============  ==================================================================
`facts`         what is found: the words of a diagnosis
`stretches`     the parts of a segment's file, one behind another
`opening`       what opening would do, in sentences
`remarks`       what somebody should look at, and why
`file_systems`  which kinds of file systems keep what they are told to keep
`segments`      each segment as it stands, in a sound store and in a damaged one
`diagnose`      all of it together
==============  ==================================================================

No lock is taken, not even one that others may share: a writer that comes meanwhile opens at once.
"""
