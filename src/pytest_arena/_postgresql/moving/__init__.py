"""How does an app's connection follow it from one event loop to the next?

A loop for each test, or for each request, would make an async driver's connections useless in the
next: they belong to the loop in which they were made. asyncpg's are led to whichever loop runs, and
stay what they are: the app's own, real and warm. Where that cannot be, a connection of another loop
is dropped without a word, and SQLAlchemy makes a new one. psycopg's and aiosqlite's need neither.
"""
