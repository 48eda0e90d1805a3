"""The engine that is a PostgreSQL database: many processes on many machines write one log.

A commit is one call of one SQL function, in one transaction (`schema/functions.py`). It locks the
row of the log, which is its head, gives the records the next sequences and inserts them as a few
rows, each a **batch** of up to 1,024 records. The lock is held until the transaction is committed,
so records become visible in the order of their sequences, without gaps.

What is committed may be answered too late, or never: a connection is lost, a time-out is over, a
standby does not confirm. So each commit has a number of its writer, which the head remembers with
its answer. One that is sent again is answered with the sequences that it has.
"""
