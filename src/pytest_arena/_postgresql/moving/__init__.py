"""Moves asyncpg's open connections between event loops.

The connections of an async driver belong to the loop in which they were opened. If each test has a
loop, they would be useless in the next test. pytest-arena moves asyncpg's connections to the
running loop. If that is not possible, it drops the connection, and SQLAlchemy opens a new one.
Connections of psycopg and aiosqlite work in any loop.
"""
