"""Stories that SQLite has no words for: what only a server can do."""

from __future__ import annotations

__all__ = ["LOCKS"]

LOCKS = """
import pytest
from app import Dancer, maker, other_maker
from hand import lacks, names, standing
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
# runner


def first(**options):
    return select(Dancer.name).order_by(Dancer.id).limit(1).with_for_update(**options)


def code(raised):
    origin = raised.value.orig
    return getattr(origin, "sqlstate", None) or origin.pgcode


@lacks("several connections")
async def test_p3_pitfall_129_rows_that_somebody_has_locked(backend):
    async with maker() as one, other_maker() as two:
        assert await one.scalar(first()) == standing()[0]
        assert await two.scalar(first(skip_locked=True)) == standing()[1]
        with pytest.raises(DBAPIError) as raised:
            await two.scalar(first(nowait=True))
        assert code(raised) == "55P03"
        await two.rollback()
        await one.rollback()
        assert await two.scalar(first(nowait=True)) == standing()[0]
    assert await names() == standing()
"""
