"""Processes of multiprocessing work on the test's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

JOBS = """
import asyncio
from sqlalchemy import create_engine, text
from app import Dancer, engine, maker

def add(name):
    async def main():
        async with maker.begin() as session:
            session.add(Dancer(name=name))
        await engine.dispose()
    asyncio.run(main())

def add_by_grandchild(name):
    import multiprocessing
    process = multiprocessing.get_context("spawn").Process(target=add, args=(name,))
    process.start()
    process.join()
    assert process.exitcode == 0
"""

SPAWNED = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import pytest
import jobs

def run(how, *call):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(how)) as pool:
        return pool.submit(*call).result()

@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_it_is_seen_and_undone(test_client, how):
    run(how, jobs.add, how)
    assert test_client.get("/dancers").json() == ["Sand", how]

def test_a_process_of_such_a_process(test_client):
    run("spawn", jobs.add_by_grandchild, "Ruby")
    assert test_client.get("/dancers").json() == ["Sand", "Ruby"]

def test_the_tests_own_url(arena, test_client):
    run("spawn", add_by_url, arena.url.replace("+aiosqlite", ""))
    assert test_client.get("/dancers").json() == ["Sand", "Own"]

def add_by_url(url):
    with jobs.create_engine(url).begin() as connection:
        connection.execute(jobs.text("INSERT INTO dancers (name) VALUES ('Own')"))

def test_a_process_without_a_database():
    assert run("spawn", abs, -1) == 1
"""


def test_a_process_of_multiprocessing_works_on_the_tests_file(example: Example) -> None:
    """The app reads its URL from a variable."""
    project = example.with_files(test_it=SPAWNED, jobs=JOBS)
    run = project.run().expect(passed=5)
    run.never_says("was changed")
    assert not (project.folder / "dev.db").exists()
