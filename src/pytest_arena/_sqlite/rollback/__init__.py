"""The isolation ``rollback``: all connections of this process share one real connection.

It is in one transaction, which pytest-arena never commits.
"""
