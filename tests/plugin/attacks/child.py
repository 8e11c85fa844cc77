"""A command: it adds a table to the file that its last argument names."""

import sqlite3
import sys

name = sys.argv[-1].partition(":///")[2] or sys.argv[-1].removeprefix("--file=")
with sqlite3.connect(name) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS attacks (a)")
