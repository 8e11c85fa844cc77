"""Moves asyncpg's open connections between event loops.

A connection of an async driver belongs to the event loop that opened it. If each test has its loop,
the next test could not use the connection. pytest-arena moves asyncpg's connections to the running
loop. If that is not possible, it drops the connection, and SQLAlchemy opens a new connection.
Connections of psycopg and aiosqlite work in any loop.
"""
