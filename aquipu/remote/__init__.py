"""The engine that is a daemon's socket.

`protocol` is what the two sides say, as bytes and back; `connection` is the way to the daemon,
made anew when it is lost; `condition` is how the daemon says that it is; `client` is the store as
a client has it.
"""
