"""A failed test's report names the files that were written in the project: they stay there."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

ROUTES = """

import os
import pathlib
from fastapi import Request

FOLDER = pathlib.Path("uploads")


@app.post("/photos/{name}")
def photo(name: str):
    FOLDER.mkdir(exist_ok=True)
    with open(FOLDER / name, "wb") as file:
        file.write(b"grain")
    return "stored"


@app.post("/avatars")
async def avatar(request: Request):
    FOLDER.mkdir(exist_ok=True)
    part = FOLDER / "part"
    part.write_bytes(await request.body())
    os.replace(part, FOLDER / "avatar.png")
    (FOLDER / "log.txt").open("a").close()
    (FOLDER / ".cache").write_text("a tool's")
    return "stored"
"""

TESTS = """
import os


def test_passes(test_client):
    test_client.post("/avatars", content=b"grain")


def test_uploads(test_client, tmp_path):
    (tmp_path / "own.txt").write_text("elsewhere")
    descriptor = os.open("gone.txt", os.O_WRONLY | os.O_CREAT)
    os.close(descriptor)
    os.remove("gone.txt")
    open("pytest.ini").close()
    assert test_client.post("/photos/sand.png").status_code == 418


async def test_both(client):
    await client.post("/avatars", content=b"grain")
    await client.post("/photos/sand.png")
    assert 0


def test_nothing(test_client):
    assert 0
"""

HEAD = "files written in the project, which stay there\n"


def test_files_of_the_project_are_named_with_their_lines(example: Example) -> None:
    """Those that are still there; none of another test, of a tool, or elsewhere."""
    app = example.files["app.py"] + ROUTES
    run = example.with_files(app=app, test_uploads=TESTS).run().expect(status=1, passed=1, failed=3)

    def at(code: str) -> str:
        number = app[: app.index(code)].count("\n") + 1
        return f"(app.py:{number})"

    photo = f"    uploads/sand.png {at('with open(FOLDER')}"
    avatar = f"    uploads/avatar.png {at('os.replace')}"
    log = f"    uploads/log.txt {at('log.txt')}"
    stories = run.output.split(HEAD)[1:]
    lines = [[*takewhile(lambda line: line[:4] == "    ", story.splitlines())] for story in stories]
    assert lines == [[photo], [avatar, log, photo]]
    run.never_says("gone.txt (", "own.txt (", "uploads/part", ".cache (")


BACKUP = """


@app.post("/backup")
async def backup():
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.exec_driver_sql("VACUUM INTO 'backup.db'")
"""


def test_the_file_of_vacuum_into_is_named(example: Example) -> None:
    """SQLite opens it in C. The next test cannot write it, so its story names it, too."""
    test = """
import pytest


@pytest.mark.parametrize("turn", range(2))
async def test_it(client, turn):
    assert (await client.post("/backup")).status_code == 418
"""
    app = example.files["app.py"] + BACKUP
    run = example.with_files(app=app, test_backup=test).run().expect(status=1, failed=2)
    assert run.output.count(HEAD + "    backup.db (app.py:") == 2
