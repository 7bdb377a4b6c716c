"""The server as a process of this machine: start, stop, status, logs.

`invoke start` detaches a small supervisor, which runs the server and starts it again after a crash. Both hold one lock
for as long as they live, so that whether a server runs is never a guess from a file that somebody left. Which processes
they are is on record beside the lock, each with its time of start, so that a pid that went to another process meanwhile
is never signalled. In a container the restart policy does the supervisor's work, and `invoke serve` runs alone.
"""
