"""The command line, from the bytes that come in to the commands that answer.

============  ==================================================================
`main`        all commands together, as `aquipu` runs them
`app`         the program, and its exit codes
`arguments`   the arguments that several commands have
`storing`     the way of lines into a store
`waiting`     what is said when a store is not there at once
`telling`     what is said when an object store does not answer
`times`       times as people write them
`metrics`     the statistics of a store over HTTP
`commands/`   the commands, by what they are for
`forms/`      what records and answers look like, for people and for programs
`bench/`      how fast a disk is, and which policy fits
`top/`        the live view of a store
`streams/`    the standard streams, signals, the progress bar, files
============  ==================================================================

An import of aquipu loads nothing of this: typer and rich belong to the extra ``cli``.
"""
