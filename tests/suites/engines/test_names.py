"""Wherever an engine is made, and however its file is named, it uses the test's database."""

import os
import sqlite3
import tempfile
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from conftest import from_conftest
from orders import aadd, add, aitems, engine, items
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

here = create_engine("sqlite:///shop.db")
NAMES = {
    "dotted": "sqlite:///./data/../shop.db",
    "linked": "sqlite:///link.sqlite",
    "read_only": "sqlite:///file:shop.db?mode=ro&uri=true",
    "by_uri": "sqlite:///file:shop.db?uri=true",
    "of_this_host": f"sqlite:///file://localhost{Path('shop.db').absolute()}?uri=true",
    "immutable": "sqlite:///file:shop.db?immutable=1&uri=true",
}


@pytest.fixture
def of_a_fixture(made):
    return made("sqlite:///shop.db")


def test_engines_that_are_made_anywhere(of_a_fixture, made, turn):
    engines = [engine, from_conftest, here, of_a_fixture, made("sqlite:///shop.db")]
    for number, each in enumerate(engines):
        add(each, f"item {number}")
    assert [len(items(each)) for each in engines] == [5] * 5


@asynccontextmanager
async def lifespan():
    made = create_async_engine("sqlite+aiosqlite:///shop.db")
    yield made
    await made.dispose()


async def test_an_engine_of_a_lifespan(turn):
    async with lifespan() as made:
        assert await aitems(made) == []
        await aadd(made, "vase")
        assert items(engine) == ["vase"]


async def test_a_sync_and_an_async_engine_in_turns():
    made = create_async_engine("sqlite+aiosqlite:///shop.db")
    for number in range(10):
        await aadd(made, f"async {number}")
        add(engine, f"sync {number}")
    assert len(items(engine)) == len(await aitems(made)) == 20
    await made.dispose()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_many_names(made, name):
    add(engine, "vase")
    assert items(made(NAMES[name])) == ["vase"]


@pytest.mark.expect("A201", at="sqlite3.connect")
def test_an_encoded_name():
    sqlite3.connect("file:%73hop.db?mode=ro", uri=True)


def test_two_files_of_one_name(made):
    one, two = (made(f"sqlite:///{folder}/Shop.db") for folder in ("one", "two"))
    add(one, "vase")
    add(two, "lamp")
    one.dispose()
    assert items(one) == ["vase"]


def test_an_engine_keeps_its_database_in_another_folder(made, arena, monkeypatch, tmp_path):
    with arena.expect_refusal():
        sqlite3.connect("shop.db")
    by_uri = made(NAMES["by_uri"])
    items(by_uri)
    monkeypatch.chdir(tmp_path)
    add(engine, "vase")
    engine.dispose()
    by_uri.dispose()
    assert items(engine) == items(by_uri) == ["vase"]
    assert list(tmp_path.iterdir()) == []
    sqlite3.connect("shop.db").close()  # a file of the test


def test_the_test_has_a_file_of_its_own(made, tmp_path):
    file = tmp_path / "own.sqlite"
    with made(f"sqlite:///{file}").begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a)")
    assert file.stat().st_size


def test_a_link_in_the_temporary_folder(made, tmp_path):
    (tmp_path / "link").symlink_to(Path("shop.db").absolute())
    add(made(f"sqlite:///{tmp_path}/link"), "vase")
    assert items(engine) == ["vase"]


def test_a_file_that_no_engine_names_is_the_suites_own():
    with closing(sqlite3.connect("own.sqlite")) as connection:
        connection.execute("CREATE TABLE items (name)")
    Path("own.sqlite").rename("renamed.sqlite")
    Path("renamed.sqlite").unlink()


def test_a_temporary_file_that_is_removed(made, turn):
    number, path = tempfile.mkstemp(suffix=".sqlite")
    os.close(number)
    with made(f"sqlite:///{path}").begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 1
    Path(path).unlink()
