"""Finds leaks of a test: connections, work that still runs, tasks of event loops."""
