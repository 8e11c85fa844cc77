"""A command: it sells all stock of the database that an argument or the environment names."""

import os
import sys

from models import sync_url
from sqlalchemy import create_engine, text

url = sys.argv[1] if sys.argv[1:] else os.environ["DATABASE_URL"]
with create_engine(sync_url(url)).begin() as connection:
    print(sorted(connection.scalars(text("SELECT item FROM stock"))))
    connection.execute(text("DELETE FROM stock"))
