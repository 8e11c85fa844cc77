"""Who waits for a lock of the same test's own transaction ends, and is told whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import shop

if TYPE_CHECKING:
    from tests.example import Example


@pytest.mark.parametrize("text", ["soon", "-1"])
def test_a_bound_that_is_no_number_of_seconds(example: Example, text: str) -> None:
    """Refused before any test."""
    run = example.run(f"-oarena_lock_timeout={text}")
    run.says("arena_lock_timeout = ", "not a number of seconds", "[A101]")
    assert run.status == 4


DEFERRED = """
import pytest
from app import Base, engine
from sqlalchemy import ForeignKey, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

sync = create_engine(engine.url.set(drivername="sqlite"))


@event.listens_for(sync, "connect")
def check_foreign_keys(connection, record):
    connection.execute("PRAGMA foreign_keys = ON")


class Part(Base):
    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(
        ForeignKey("stock.item", deferrable=True, initially="DEFERRED")
    )


@pytest.mark.parametrize("turn", range(2))
def test_a_commit_that_fails(turn):
    with pytest.raises(IntegrityError), Session(sync) as session:
        session.add(Part(item="none"))
        session.commit()


def test_its_lock():
    test_a_commit_that_fails(0)
    other = create_engine(sync.url, connect_args={"timeout": 0.1})
    with other.begin() as connection:
        connection.execute(text("DELETE FROM stock"))


def test_after_it():
    with sync.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM parts")) == 0
"""


def test_a_commit_that_fails_on_a_file(example: Example) -> None:
    """SQLAlchemy gives the connection back inside its transaction. Its lock ends with the test."""
    project = shop(example, test_it=DEFERRED)
    run = project.run("-oarena_schema=test_it:Base").expect(1, passed=3, failed=1)
    run.never_says("a new file has replaced it")
