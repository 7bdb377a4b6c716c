"""The server as a process of this machine: start, stop, status, logs.

`invoke start` detaches a small supervisor, which runs the server and restarts it after a crash. Both share a lock for
as long as they live, so whether a server runs is never a guess from a stale file. A record beside the lock names their
processes, each with its start time, so that a pid reused by another process is never signalled. In a container Docker's
restart policy does the supervisor's work, and `invoke serve` runs alone.
"""
