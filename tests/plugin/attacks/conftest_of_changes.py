"""Changes of a developer's files before an engine names them: only the end of the run shows them."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

from changes import CHANGES
from sqlalchemy import create_engine


def removed(file):
    os.remove(file)


def renamed(file):
    os.rename(file, "renamed")


def replaced(file):
    os.replace(shutil.copy("child.py", "new"), file)


def written(file):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE attacks (a)")


def child(file):
    subprocess.run([sys.executable, "child.py", file], check=True)


for change in CHANGES:
    globals()[change](f"{change}.db")
ENGINES = [create_engine(f"sqlite:///{change}.db") for change in (*CHANGES, "gone")]
