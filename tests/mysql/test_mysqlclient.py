"""mysqlclient is a driver in C, which needs the headers of a client library to be built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mysql.shop import shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer
    from tests.example import Example

APP = """
from fastapi import Depends, FastAPI
from sqlalchemy import ForeignKey, String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

URL = {url!r}
engine = create_engine(URL, pool_pre_ping=True)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)


class Line(Base):
    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id", ondelete="CASCADE"))


def get_db():
    with Session(engine) as session:
        yield session


app = FastAPI()


@app.get("/items")
def items(db: Session = Depends(get_db)):
    return list(db.scalars(select(Item.name).order_by(Item.id)))


@app.post("/items/{{name}}")
def add(name: str, db: Session = Depends(get_db)):
    item = Item(name=name)
    db.add(item)
    db.commit()
    return item.id


@app.post("/lost/{{name}}")
def lost(name: str, db: Session = Depends(get_db)):
    db.add(Item(name=name))
    db.flush()
"""


@pytest.fixture
def example(server: StoryMySQLServer, tmp_path: Path) -> Example:
    """A sync shop on mysqlclient, which `mysql://` means without a driver's name."""
    pytest.importorskip("MySQLdb")
    url = server.developers_url("mysql").render_as_string(hide_password=False)
    return shop(server, tmp_path).with_paths({"app.py": APP.format(url=url)})


REQUESTS = """
import pytest
from app import Item, engine
from sqlalchemy import text


def test_a_request_sees_the_row_of_a_fixture(test_client, db_session):
    db_session.add(Item(name="apple"))
    db_session.commit()
    assert test_client.get("/items").json() == ["seeded", "apple"]
    assert test_client.post("/items/pear").json() == 3


def test_the_next_test_does_not(test_client, arena):
    assert test_client.get("/items").json() == ["seeded"]
    assert test_client.post("/items/pear").json() == 2
    assert len(arena.changes().inserted["item"]) == 1


def test_changes_the_schema():
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE item ADD COLUMN late INT"))


def test_forgets_a_commit(test_client):
    assert test_client.get("/items").json() == ["seeded"]
    test_client.post("/lost/pear")
"""


def test_an_unmodified_app(server: StoryMySQLServer, example: Example) -> None:
    """As with any other driver."""
    run = example.with_files(test_requests=REQUESTS).run("-q")
    run.expect(passed=4).says("POST /lost/pear 200 wrote item (1 row) and never committed it")
    assert server.left() == []


RAW = """
import MySQLdb
from app import URL
from sqlalchemy.engine import make_url


def arguments(url):
    url = make_url(url)
    return url.host, url.username, url.password or "", url.database, url.port


def test_to_the_tests_database(test_client, arena):
    connection = MySQLdb.connect(*arguments(arena.url))
    connection.cursor().execute("INSERT INTO item (name) VALUES ('raw')")
    connection.commit()
    assert test_client.get("/items").json() == ["seeded", "raw"]
    connection.close()


def test_is_refused(test_client, arena):
    assert test_client.get("/items").json() == ["seeded"]
    host, user, password, database, port = arguments(URL)
    with arena.expect_refusal():
        MySQLdb.connect(host, user, password, database, port)
    with arena.expect_refusal():
        MySQLdb.connect(host=host, user=user, passwd=password, db=database)
"""


def test_connections_without_an_engine(example: Example) -> None:
    """To the test's database they are admitted, and to the developer's refused."""
    example.with_files(test_raw=RAW).run("-q").expect(passed=2)


OTHERS = """
import MySQLdb
from app import URL
from test_raw import arguments


def test_is_led_inside(test_client):
    connection = MySQLdb.connect(*arguments(URL))
    connection.cursor().execute("INSERT INTO item (name) VALUES ('raw')")
    connection.commit()
    connection.close()
    assert test_client.get("/items").json() == ["seeded", "raw"]


def test_is_undone(test_client):
    assert test_client.get("/items").json() == ["seeded"]
"""


@pytest.mark.slow
def test_redirected_connections(example: Example) -> None:
    """``arena_drivers = redirect`` leads them inside."""
    example = example.with_files(test_raw=RAW, test_others=OTHERS)
    example.run("-q", "-oarena_drivers=redirect", "test_others.py").expect(passed=2)
