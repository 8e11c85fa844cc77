"""The isolation ``rollback``: all connections of this process share one real connection.

The real connection is inside one transaction, which pytest-arena never commits.
"""
