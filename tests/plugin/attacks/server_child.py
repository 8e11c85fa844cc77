"""A command: it inserts its first argument into the database that its last one names."""

import sys

import psycopg
from sqlalchemy import make_url

url = make_url(sys.argv[2].removeprefix("--url=").replace("postgres://", "postgresql://"))
with psycopg.connect(url.set(drivername="postgresql").render_as_string(False)) as connection:
    connection.execute("INSERT INTO dancers VALUES (%s)", (sys.argv[1],))
