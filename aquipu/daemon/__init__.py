"""A store that many processes write: one of them is its daemon, the others are connected to it.

============  ==================================================================
`wire`        what the two say to each other, as bytes and back
`keyed`       finding a commit by its key, when its answer was lost
`connection`  the client's way to the daemon, made anew when it is lost
`remote`      `RemoteStore`: the store, as a client has it
`answers`     what the daemon does for a client, and says
`server`      `Daemon`: the socket, and a session for each client
============  ==================================================================

Whoever writes a store alone loads nothing of this: `Store.connect` asks for `remote`, and ``aquipu serve`` for `server`.
"""
