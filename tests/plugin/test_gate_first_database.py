"""Which of several databases is the app's first one, that gets the schema and db_session?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

USES_THE_APP = """
async def test_the_app_has_its_schema_and_seed(client, db_session, arena):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert arena.url.endswith("{name}") and str(arena.engine.url) == arena.url
"""

CONFTEST = """
import os
os.environ["DATABASE_URL"] = "sqlite+aiosqlite:///for_tests.db"
"""


def test_a_variable_that_a_conftest_writes_anew_names_the_first_database(
    example: Example,
) -> None:
    """Also where it named another database before, which pytest-arena had redirected."""
    tests = example.with_files(conftest=CONFTEST, test_env=USES_THE_APP.format(name="for_tests.db"))
    tests.run(env={"DATABASE_URL": "sqlite+aiosqlite:///dev.db"}).expect(passed=1)


TABLES_AT_IMPORT = """
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): pass

class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)

engine = create_engine("sqlite:///dev.db")
Base.metadata.create_all(engine)
"""

COUNTS = """
import main
from sqlalchemy import text

def test_the_tables_are_there(db_session):
    assert db_session.scalar(text("SELECT count(*) FROM dancers")) == 0
"""


def test_an_app_that_makes_its_tables_while_it_is_imported(example: Example) -> None:
    """The template is built of the very module that is being imported; nobody waits for ever."""
    config = "[pytest]\npythonpath = .\narena_schema = main:Base\n"
    tests = example.with_files(main=TABLES_AT_IMPORT, test_main=COUNTS)
    tests.with_paths({"pytest.ini": config}).run().expect(passed=1)
