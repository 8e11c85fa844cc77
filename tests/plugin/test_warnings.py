"""Warnings are pytest's: emitted at a test's end, and `filterwarnings` decides about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """

import asyncio

tasks = set()


async def get_late():
    async with maker() as session:
        yield session
        await session.commit()


@app.post("/lost/{name}", status_code=201)
async def lost(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    await db.flush()  # token=s3cret


@app.post("/early/{name}", status_code=201)
@app.post("/soon/{name}", status_code=201)
async def early(name: str, db=Depends(get_late)):
    db.add(Dancer(name=name))


@app.post("/work", status_code=202)
async def work():
    tasks.add(asyncio.create_task(asyncio.Event().wait()))
"""

TESTS = """
import pytest
from app import engine

ENDED = []
KEPT = []


@pytest.fixture(scope="module")
def wide():
    yield
    ENDED.append("wide")


@pytest.fixture
def narrow():
    yield
    ENDED.append("narrow")


async def test_all(wide, narrow, client):
    KEPT.append(await engine.connect())
    for path in ("lost/Ann", "early/Bob", "soon/Cid", "work"):
        assert (await client.post(f"/{path}")).is_success


async def test_lost_again(client, arena):
    assert ENDED == ["narrow"]
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/lost/Eve")).is_success


@pytest.mark.filterwarnings("ignore::pytest_arena.LostWriteWarning")
async def test_waived(client):
    assert (await client.post("/lost/Eve")).is_success


async def test_fails_of_itself(client):
    assert (await client.post("/lost/Eve")).status_code == 500
"""
KINDS = ("LeakWarning", "LostWriteWarning", "LateCommitWarning", "LateWorkWarning")
LOST = "POST /lost/{name} 201 wrote dancers and never committed it: lost cause: app.py:57"


@pytest.fixture
def project(example: Example) -> Example:
    return example.with_files(app=example.files["app.py"] + APP, test_it=TESTS)


def test_each_warning_is_shown_with_the_line_and_the_tests(project: Example) -> None:
    """Under -q. A marker waives one test, and the report of a failed test says enough."""
    run = project.run("-q", "-p", "no:randomly", "-oarena_settle=0.1").expect(1, passed=3, failed=1)
    for kind in KINDS:
        run.warns(f"{kind}: ", "test_all", *(["test_lost_again"] if kind.startswith("Los") else []))
        run.says(f"reference/errors.html#{kind.lower()}")
    run.warns(f"app.py:57: LostWriteWarning: {LOST} await db.flush() # token=*** next: ")


def test_several_errors_of_a_test_are_one_report_and_skip_nothing(project: Example) -> None:
    """The levels are left, so that the next test is clean. The fixtures' ends have run."""
    options = (
        "-p",
        "no:randomly",
        "-oarena_settle=0.1",
        "-oaddopts=",
        "-Werror::pytest_arena.ArenaWarning",
    )
    run = project.run("-q", *options).expect(1, passed=3, failed=1, errors=2)
    report = run.output.partition("ERROR at teardown of test_all")[2].partition("\n____")[0]
    for kind in KINDS:
        assert report.count(f"{kind}: ") == 1, report
    run.says("LostWriteWarning: POST /lost/{name} 201 wrote dancers").never_says("warnings summary")
