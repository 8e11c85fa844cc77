"""Is a PUT that does nothing named, if the test itself has changed the row?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

APP = """


@app.put("/idle/{dancer}")
async def idle(dancer: int, db=Depends(get_db)):
    await db.get(Dancer, dancer)
    return {}


@app.put("/refused/{dancer}", status_code=403)
async def refused(dancer: int, db=Depends(get_db)):
    await db.get(Dancer, dancer)


@app.post("/read/{dancer}")
async def read(dancer: int, db=Depends(get_db)):
    return (await db.get(Dancer, dancer)).name


@app.patch("/dancers/{dancer}")
async def rename(dancer: int, name: str, db=Depends(get_db)):
    (await db.get(Dancer, dancer)).name = name
    await db.commit()
"""
TESTS = """
import pytest
from app import Dancer


@pytest.fixture
async def dancer(db_session):
    return await db_session.get(Dancer, 1)


async def test_that_checks_its_own_change(client, dancer, db_session):
    dancer.name = "Dune"
    await client.put("/idle/1", json={"name": dancer.name})
    await db_session.refresh(dancer)
    assert dancer.name == "Dune"


async def test_of_a_request_that_writes(client, dancer):
    dancer.name = "Dune"
    await client.patch("/dancers/1", params={"name": "Salt"})


async def test_of_a_refusal(client, dancer):
    dancer.name = "Dune"
    await client.put("/refused/1")


async def test_of_another_method(client, dancer):
    dancer.name = "Dune"
    await client.post("/read/1")


async def test_that_commits(client, dancer, db_session):
    dancer.name = "Dune"
    await db_session.commit()
    await client.put("/idle/1")


async def test_that_adds(client, db_session):
    db_session.add(Dancer(name="Dune"))
    await client.put("/idle/1")


async def test_that_rolls_back(client, dancer, db_session):
    dancer.name = "Dune"
    await db_session.flush()
    await db_session.rollback()
    await client.put("/idle/1")


async def test_of_a_later_request(client, dancer):
    dancer.name = "Dune"
    await client.patch("/dancers/1", params={"name": "Salt"})
    await client.put("/idle/1")
"""
EARLIER = """
import pytest
from app import Dancer
from sqlalchemy import select


@pytest.fixture
async def dancer(db_session):
    return await db_session.get(Dancer, 1)


async def test_that_flushes(client, dancer, db_session):
    dancer.name = "Dune"
    await db_session.flush()
    await client.put("/idle/1")


async def test_that_queries(client, dancer, db_session):
    dancer.name = "Dune"
    (await db_session.scalars(select(Dancer))).all()
    await client.put("/idle/1")


async def test_that_reads_by_a_request(client, dancer):
    dancer.name = "Dune"
    await client.post("/read/1")
    await client.put("/idle/1")
"""


def test_a_put_that_writes_nothing_after_the_tests_change_of_the_row_is_named(
    example: Example,
) -> None:
    """Other requests are not: a test may prepare a row for them."""
    project = example.with_files(app=example.files["app.py"] + APP, test_it=TESTS)
    run = project.run("-q").expect(passed=8)
    run.says(
        "test_it.py::test_that_checks_its_own_change changed a loaded Dancer and sent a PUT. "
        "pytest-arena committed the change before the request, and the request wrote nothing"
    )
    assert run.output.count("changed a loaded") == 1
    run.never_says("so in 1 more")


def test_a_put_is_named_as_well_if_a_flush_a_query_or_a_request_precedes_it(
    example: Example,
) -> None:
    """Each of them may write the change before pytest-arena commits it."""
    project = example.with_files(app=example.files["app.py"] + APP, test_it=EARLIER)
    run = project.run("-q").expect(passed=3)
    run.says("test_it.py::test_that_flushes changed a loaded Dancer and sent a PUT")
    run.says("so in 2 more")
