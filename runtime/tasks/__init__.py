"""The tasks that tasks.py gathers: each parses, calls one function and prints."""
