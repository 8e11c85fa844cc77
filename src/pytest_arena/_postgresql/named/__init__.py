"""Runs tests with ``rollback`` in a database that pytest-arena has not created."""
