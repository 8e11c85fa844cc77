"""``db_session`` and deferred columns: a query changes their values, and not which are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

MODEL = """

from sqlalchemy import func
from sqlalchemy.orm import column_property


class Film(Base):
    __tablename__ = "films"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    script: Mapped[str] = mapped_column(deferred=True)
    secret: Mapped[str] = mapped_column(deferred=True, deferred_raiseload=True)


Film.title = column_property(func.upper(Film.name), deferred=True)


@app.put("/films")
async def cut(db=Depends(get_db)):
    for film in await db.scalars(select(Film)):
        film.script = film.secret = "cut"
    await db.commit()
"""

TESTS = """
import pytest
from sqlalchemy import inspect, select
from sqlalchemy.orm import aliased, undefer
from app import Film

QUERIES = {
    "class": select(Film),
    "alias": select(aliased(Film)),
    "column": select(Film.name),
}

def new():
    return Film(name="Dune", script="long", secret="end")

@pytest.mark.parametrize("query", QUERIES)
async def test_what_the_test_has_given_stays(db_session, client, query):
    film = new()
    db_session.add(film)
    assert (await client.put("/films")).status_code == 200
    await db_session.scalars(QUERIES[query])
    now = ("long", "end") if query == "column" else ("cut", "cut")
    assert (film.script, film.secret) == now

async def test_what_a_query_has_loaded_stays(db_session, client):
    db_session.add(new())
    await db_session.commit()
    db_session.expunge_all()
    loading = select(Film).options(undefer(Film.script), undefer(Film.title))
    film = (await db_session.scalars(loading)).one()
    await client.put("/films")
    assert await db_session.get(Film, film.id) is film
    assert (film.script, film.title) == ("cut", "DUNE")
    assert inspect(film).unloaded == {"secret"}

async def test_what_no_query_has_loaded_stays_so(db_session):
    db_session.add(new())
    await db_session.commit()
    db_session.expunge_all()
    film = (await db_session.scalars(select(Film))).one()
    await db_session.scalars(select(Film))
    assert inspect(film).unloaded == {"script", "secret", "title"}
"""


@pytest.mark.slow
@pytest.mark.parametrize("product", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_query_keeps_loaded_deferred_columns(example: Example, product: str) -> None:
    """Their values are of the present. In an async test nothing else could load them later."""
    app = example.files["app.py"] + MODEL
    example = example.with_files(app=app, test_it=TESTS)
    if product == "postgresql":
        example = on_postgresql(example)
    example.run().expect(passed=5)
