"""Which database gets which schema, and what the run says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

MODELS = """
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

shop = create_engine("sqlite:///data/shop.db")
archive = create_engine("sqlite:///archive.db")

def seed(session):
    session.add(Order(id=7))

def create_partly(connection):
    connection.execute(text("CREATE TABLE orders (id INTEGER REFERENCES)"))

def create_others(connection):
    connection.execute(text("CREATE TABLE others (id INTEGER)"))

def seed_none(session):
    pass

def seed_in_archive(session):
    archive.connect().close()

def create_all():
    Base.metadata.create_all(shop)

def create_elsewhere():
    create_engine("postgresql+psycopg://me@db.example.org/shop").connect()

def create_both():
    Base.metadata.create_all(shop)
    Base.metadata.create_all(archive)
"""

TESTS = """
from sqlalchemy import inspect
from models import archive, shop

def test_shop():
    assert inspect(shop).get_table_names() == ["orders"]

def test_archive():
    assert inspect(archive).get_table_names() == TABLES
"""


def shop(folder: Path, options: str, *, tables: str = '["orders"]') -> Example:
    ini = f"[pytest]\npythonpath = .\naddopts = -p no:randomly\n{options}"
    files = {"test_it": TESTS.replace("TABLES", tables), "models": MODELS}
    return small_example(folder, **files).with_paths({"pytest.ini": ini})


def test_the_summary_says_what_each_database_was_given(tmp_path: Path) -> None:
    """A seed without a name is for the first one."""
    options = "arena_schema = models:Base\narena_seed = models:seed\n"
    run = shop(tmp_path, options).run().expect(passed=2)
    run.says("in place of shop (models:Base, models:seed), archive (models:Base) on SQLite")


def test_two_schemas_with_one_seed(tmp_path: Path) -> None:
    """Each seeded template has the tables of its schema."""
    options = "arena_schema =\n    shop = models:Base\n    archive = models:create_others\n"
    options += "arena_seed =\n    shop = models:seed_none\n    archive = models:seed_none\n"
    shop(tmp_path, options, tables='["others"]').run().expect(passed=2)


def test_an_empty_database_has_no_template(tmp_path: Path) -> None:
    project = shop(tmp_path, "arena_schema =\n    models:Base\n    archive = none\n", tables="[]")
    project.run("-k", "archive").expect(passed=1).says("no template").never_says("from the cache")
    project.run().expect(passed=2).says("in place of shop (models:Base), archive (empty) on SQLite")


def test_a_builder_on_an_engine_of_the_app_builds_each_database(tmp_path: Path) -> None:
    """Like `env.py` of Alembic, it knows one URL."""
    shop(tmp_path, "arena_schema = models:create_all\n").run().expect(passed=2)


@pytest.mark.parametrize("schema", ["create_both", "Base\narena_seed = models:seed_in_archive"])
def test_a_builder_that_connects_to_two_databases_must_be_split(
    tmp_path: Path, schema: str
) -> None:
    run = shop(tmp_path, f"arena_schema = models:{schema}\n").run("-k", "shop").expect(1, failed=1)
    run.says("connects to another database: archive", "archive = module:its_function")


def test_a_builder_on_another_product_is_refused(tmp_path: Path) -> None:
    """Such as `env.py` with the URL of production."""
    run = shop(tmp_path, "arena_schema = models:create_elsewhere\n").run("-k", "shop")
    run.expect(1, failed=1).says("refused: the build of", "connects to another database")


OF_TWO_FILES = """
from sqlalchemy import create_engine, inspect
from models import shop

def test_each_has_the_value_of_its_line():
    other = create_engine("sqlite:///shop.db")
    assert inspect(other).get_table_names() == []
    assert inspect(shop).get_table_names() == ["orders"]
"""


def test_the_longer_name_is_for_one_of_two_files(tmp_path: Path) -> None:
    options = "arena_schema =\n    shop = none\n    data/shop = models:Base\n"
    shop(tmp_path, options).with_files(test_it=OF_TWO_FILES).run().expect(passed=1)


IN_MEMORY = """
import pytest
from models import Base, Order
from sqlalchemy import StaticPool, create_engine

@pytest.mark.parametrize("turn", [1, 2])
def test_it(turn):
    for engine in (create_engine("sqlite://", poolclass=StaticPool) for _ in range(2)):
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(Order.__table__.insert().values(id=1))
"""


def test_one_line_is_for_all_engines_in_memory(tmp_path: Path) -> None:
    """Such as those of unit tests, beside tests on a server."""
    options = "arena_schema =\n    models:create_partly\n    memory = none\n"
    run = shop(tmp_path, options).with_files(test_it=IN_MEMORY).run()
    run.expect(passed=2).says("in place of memory (empty) on SQLite", "no template")


MEANWHILE = """
import threading
from sqlalchemy import select
from models import Base, Order, shop

building, connecting = threading.Event(), threading.Event()

def make(connection):
    building.set()
    connecting.wait(20)
    Base.metadata.create_all(connection)

def test_a_thread_of_the_apps_waits_for_the_template():
    def add():
        connecting.set()
        with shop.begin() as connection:
            connection.execute(Order.__table__.insert().values(id=1))
    def first():
        with shop.connect():
            pass
    threads = [threading.Thread(target=first), threading.Thread(target=add)]
    threads[0].start()
    building.wait(20)
    threads[1].start()
    for thread in threads:
        thread.join()
    with shop.connect() as connection:
        assert connection.scalars(select(Order.id)).all() == [1]

def test_the_template_is_clean():
    with shop.connect() as connection:
        assert connection.scalars(select(Order.id)).all() == []
"""


def test_who_connects_while_a_template_is_built_waits_for_it(tmp_path: Path) -> None:
    """A thread that the app starts meanwhile is none of the builder's."""
    options = "arena_schema = test_meanwhile:make\n"
    project = shop(tmp_path, options).with_files(test_meanwhile=MEANWHILE)
    project.run("test_meanwhile.py").expect(passed=2)
