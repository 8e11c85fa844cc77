"""What the reports of MySQL say, and what is refused."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.mysql.shop import shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer

KEPT = """
async def test_fails(client):
    await client.post("/dancers/Dune")
    assert False
"""


def test_a_kept_database(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The line of a failed test has the command that opens the copy."""
    run = shop(server, tmp_path).with_files(test_kept=KEPT).run("-q", "--arena-keep=failed")
    run.expect(status=1, failed=1)
    command = re.findall(r"the test's database was kept: (mysql .*)", run.output)[0]
    words = [word for word in shlex.split(command) if word != "-p"]
    assert "--protocol=tcp" in words  # MySQL's client would use a socket for `localhost`
    if shutil.which("mysql") is None:
        pytest.skip("the client is not installed")
    rows = subprocess.run(
        [*words, "-Ne", "SELECT name FROM dancers ORDER BY id"],
        env={**os.environ, "MYSQL_PWD": server.entrance["password"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert rows.stdout.split() == ["Sand", "Dune"]


def test_a_server_of_another_product_is_named(server: StoryMySQLServer, tmp_path: Path) -> None:
    """MySQL's databases are on a local service, as with the name of that product."""
    login = server.developers_arguments
    env = {"MYSQL_TCP_PORT": str(login["port"]), "MYSQL_PWD": login["password"]}
    env["ARENA_DATABASE"] = "postgresql://postgres@localhost:5432/postgres"
    run = shop(server, tmp_path).with_files(test_kept=KEPT).run("-q", env=env)
    run.expect(status=1, failed=1).says("assert False")


MODEL = """
from sqlalchemy import CHAR, Uuid
class Ticket(Base):
    __tablename__ = "tickets"
    id = mapped_column(Uuid(), primary_key=True)
"""
TYPE = """
from pathlib import Path
from sqlalchemy import text

async def test_type(db_session):
    columns = await db_session.execute(text("DESCRIBE tickets"))
    Path("type").write_text(str(columns.all()))
"""


def test_a_type_that_only_the_server_has_changes_the_template(
    server: StoryMySQLServer, tmp_path: Path
) -> None:
    """MariaDB has a type for UUIDs. The tests run on the schema that a new build would create."""
    example = shop(server, tmp_path).with_files(test_type=TYPE)
    types = []
    for column, option in (("CHAR(32)", "-q"), ("Uuid()", "-q"), ("Uuid()", "--arena-rebuild")):
        app = example.files["app.py"] + MODEL.replace("Uuid()", column)
        run = example.with_paths({"app.py": app}).run(option).expect(passed=1)
        types.append((run.folder / "type").read_text())
    assert types[1] == types[2]
