"""Serves a store to other processes, through a socket.

`server` holds the socket and a session for each client, `answers` does what a client asks, and
`keyed` finds a commit by its key when its answer was lost.
"""
