"""The command line, from the bytes that come in to the commands that answer.

==========  ====================================================================
`lines`     standard input as records: one a line
`console`   the standard streams, the progress bar, and signals
`app`       what the commands share: the program, its exit codes, its arguments
`export`    records as other programs read them: ndjson, csv, parquet
`output`    the file, or whatever else, that an export goes to
`metrics`   the statistics of a store over HTTP
`queries`   the commands that read, backup among them
`changes`   the commands that change a store while it works
`check`     the commands that build indexes anew and repair, at rest
`serve`     the command that serves a store to other processes
`main`      all of them together, as `aquipu` runs them
==========  ====================================================================

An import of aquipu loads nothing of this: typer and rich belong to the extra ``cli``.
"""
