"""An app that copies its own SQLite file by path: the failure names the cause and the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_arena.testing import Example

ROUTES = """

import os
import shutil
from fastapi.responses import FileResponse
from sqlalchemy import text

PATH = "dev.db"


@app.post("/backup")
def backup():
    shutil.copy(PATH, "backup.db")
    return "copied"


@app.get("/download")
def download():
    return FileResponse(PATH)


@app.post("/vacuum")
async def vacuum(to: str):
    async with engine.connect() as connection:
        await connection.execute(text("VACUUM INTO :to"), {"to": to})
    return "copied"
"""

TESTS = """
import sqlite3
import app
import pytest
from pathlib import Path
from sqlalchemy import make_url


def test_copies(test_client):
    test_client.post("/backup")


def test_downloads(test_client):
    test_client.get("/download")


def test_opens():
    open(Path(app.PATH), "wb")


def test_by_a_connection(test_client, tmp_path):
    copy = tmp_path / "copy.db"
    test_client.post("/vacuum", params={"to": str(copy)})
    assert sqlite3.connect(copy).execute("SELECT name FROM dancers").fetchall() == [("Sand",)]


def test_by_a_path_that_is_set(test_client, arena, monkeypatch):
    monkeypatch.setattr(app, "PATH", make_url(arena.url).database)
    test_client.post("/dancers/Dune")
    test_client.post("/backup")
    rows = sqlite3.connect("backup.db").execute("SELECT name FROM dancers").fetchall()
    assert ("Dune",) in rows
    assert test_client.get("/download").content.startswith(b"SQLite format 3")


def test_another_file(test_client):
    open("other.db", "wb").close()
"""

REFUSED = "refused: opening dev.db, a database file of the app, by its path"


def test_a_file_of_the_app_that_is_opened_by_its_path_is_refused(example: Example) -> None:
    """Whether it is there or not: what it holds is not what the app has in this test."""
    app = example.files["app.py"] + ROUTES
    project = example.with_files(app=app, test_backup=TESTS)
    run = project.run().expect(status=1, passed=3, failed=3)
    run.says(REFUSED)
    assert run.output.count(f"ProductionDatabaseError: {REFUSED}") >= 2
    run.says("the test's database is in another file; this one has the app's own data")
    run.says('shutil.copy(PATH, "backup.db")')
    run.says("VACUUM INTO 'copy.db'", "make_url(arena.url).database")
    run.says("dev.db is not there: the database of this test is in another file")
    assert not (project.folder / "dev.db").exists()


def test_one_that_tests_may_reach_is_opened(example: Example) -> None:
    """``arena_allow`` lets it through, as it lets a connection through."""
    test = 'def test_it(test_client): open("dev.db", "rb").close()'
    project = example.with_files(test_it=test).with_paths({"dev.db": "the developer's"})
    project.run().expect(status=1, failed=1).says("refused: opening dev.db")
    project.run("-o", "arena_allow=dev.db").expect(passed=1)
