"""The live view of a store: `aquipu top`.

============  ======================================================================
`samples`     what is known of a store at a moment, wherever it comes from
`sources`     where samples come from: a directory, or the daemon that has the files
`view`        what the samples of the last minutes come to. Pure
`drawing`     a view as the lines of a terminal. Pure
`screen`      the terminal: drawn on, asked for keys, and given back as it was
============  ======================================================================

What it costs the writer: of a directory, one small page is read now and then, which the writer has
put there anyway; a daemon answers two short questions. No lock is taken and no one waits.
"""
