"""What nobody is to read in a log stands in no document of scenarios either."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import told
from tests.scenarios.seen import seeing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

NUMBER = "078-05-1120"

CALL = "import sys; from pytest_arena._cli import main; sys.exit(main())"

TESTS = f"""
from app import Dancer, app, maker

@app.get("/dancers/{{name}}/twice")
async def twice(name: str):
    return [name, name]

@pytest.fixture
async def row(db_session):
    db_session.add(Dancer(name="{NUMBER}"))
    await db_session.commit()

@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="wide-{NUMBER}"))
        session.commit()

@proves
async def test_fails(client, row):
    answer = await client.get("/dancers")
    assert answer.json() == ["nobody"]

@proves
async def test_fails_by_a_wide_row(client, wide, row):
    assert (await client.get("/dancers")).json() == ["nobody"]

@proves
async def test_fails_in_tear_down(client, row, failing):
    assert (await client.get("/dancers")).json()

@proves
async def test_notices(client, row):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert "'{NUMBER}'" in repr(answer.json()), repr(answer.json())
    async with maker() as session:
        assert await session.get(Dancer, 2), "{NUMBER} is not there"

@proves
async def test_asks_for_it(client, row):
    answer = await client.get(f"/dancers/{NUMBER}/twice")
    assert answer.json()

@pytest.fixture
def failing(row):
    yield
    raise ValueError("{NUMBER}")
"""


@pytest.fixture
def example(tmp_path: Path) -> Example:
    """A suite whose failures name what a patient would not have told."""
    column = 'mapped_column("secret_name", unique=True)'
    return seeing(tmp_path, TESTS).change("app.py", "mapped_column(unique=True)", column)


@pytest.mark.slow
def test_values_of_secret_columns_are_in_no_document(example: Example) -> None:
    """Neither as why a test has failed or noticed, nor in the path of a request."""
    outputs = "--scenarios-out=html:out.html,md:out.md,messages:out.ndjson"
    found = told(example, "--scenarios-sabotage", outputs, "--tb=no")
    assert found.statuses["fails"] == found.statuses["fails_by_a_wide_row"] == "FAILED"
    assert "***" in found.reason("fails")
    for name in ("out.json", "out.html", "out.md", "out.ndjson"):
        text = (found.run.folder / name).read_text(encoding="utf-8")
        assert NUMBER not in text, (name, text[text.index(NUMBER) - 300 :][:600])
    for name in found.scenarios:
        explained = example.python("-c", CALL, "scenarios", "explain", name, "--json", "out.json")
        assert name in explained.output
        assert NUMBER not in explained.output


@pytest.mark.slow
def test_what_is_no_secret_is_shown(example: Example) -> None:
    """A reason is there to be read."""
    found = told(example.change("app.py", "secret_name", "name"), "--tb=no")
    assert NUMBER in found.reason("fails")
