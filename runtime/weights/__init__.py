"""Weights: fetched from a hub, checked, recorded in weights.lock, and checked again before a server loads them.

facts      what env/weights.toml knows          hubs         one small interface: list the files, open one
places     which directory, which repository    transfer     one file, read on where it broke off
manifest   files with sizes and sums            fetch        all of it, and into place at once
lock       weights.lock                         verify       what is there against the lock
"""
