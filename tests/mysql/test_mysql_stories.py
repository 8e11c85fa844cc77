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


MODELS = """
from sqlalchemy import CHAR, Uuid
class Ticket(Base):
    __tablename__ = "tickets"
    id: Mapped[int] = mapped_column(primary_key=True)
    code = mapped_column(CHAR(32), nullable=False)
"""
TYPE = """
from pathlib import Path
from sqlalchemy import text

async def test_type(db_session):
    rows = await db_session.execute(text(
        "SELECT column_type FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = 'tickets' AND column_name = 'code'"))
    Path("type").write_text(str(rows.scalar_one()))
"""


def test_a_type_that_only_the_server_has_changes_the_template(
    server: StoryMySQLServer, tmp_path: Path
) -> None:
    """MariaDB has a type for UUIDs. The tests run on the schema that a new build would create."""
    example = shop(server, tmp_path).with_files(test_type=TYPE)
    example = example.with_paths({"app.py": example.files["app.py"] + MODELS})
    example.run().expect(passed=1)
    example = example.change("app.py", "CHAR(32)", "Uuid()")
    types = []
    for options in ((), ("--arena-rebuild",)):
        run = example.run(*options).expect(passed=1)
        types.append((run.folder / "type").read_text())
    assert types[0] == types[1]
