"""The variable leads to the test's database from the first import."""

import os
import sqlite3
from pathlib import Path

import pytest
from conftest import AT_IMPORT
from orders import aadd, add, aitems, engine, items
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

by_new_value = create_engine(AT_IMPORT)


def test_the_value_is_another_one_before_any_import():
    assert "shop.db" in AT_IMPORT
    assert Path(AT_IMPORT.removeprefix("sqlite:///")).parent != Path.cwd()
    assert type(by_new_value.pool) is type(engine.pool)


def test_old_and_new_value_mean_one_database(turn):
    add(by_new_value, "new")
    add(engine, "old")
    assert items(engine) == items(by_new_value) == ["new", "old"]


def test_a_driver_that_reads_the_variable():
    add(engine, "vase")
    raw = sqlite3.connect(AT_IMPORT.removeprefix("sqlite:///"))
    assert raw.execute("SELECT item FROM orders").fetchall() == [("vase",)]
    raw.close()


def test_a_fixture_sets_the_variable(turn, monkeypatch, made):
    monkeypatch.setenv("DATABASE_URL", "sqlite:///shop.db")
    add(made(os.environ["DATABASE_URL"]), "vase")
    assert items(by_new_value) == ["vase"]


def test_an_app_that_reads_a_url_of_its_own(turn, made):
    with made("sqlite:///from_dotenv.db").begin() as connection:
        connection.exec_driver_sql("CREATE TABLE mine (a)")
    assert not Path("from_dotenv.db").exists()


BESIDE = ["shop_acme.db", "tenants/acme.db"]


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("name", BESIDE)
async def test_a_tenant_has_a_file_beside_that_of_the_variable(name, turn, made, arena):
    path = Path(by_new_value.url.database).parent / name
    path.parent.mkdir(exist_ok=True)
    tenant = create_async_engine(
        by_new_value.url.set(drivername="sqlite+aiosqlite", database=str(path))
    )
    assert await aitems(tenant) == []
    await aadd(tenant, "vase")
    database = str(Path(name).with_suffix(""))
    assert arena.changes(database=database)["orders"].inserted[0].after["item"] == "vase"
    assert items(made(tenant.url.set(drivername="sqlite"))) == ["vase"]
    assert items(engine) == []
    await tenant.dispose()


@pytest.mark.expect("A201", at="sqlite3.connect")
def test_a_driver_opens_a_file_beside_that_of_the_variable():
    sqlite3.connect(Path(by_new_value.url.database).with_name("shop_other.db"))


VALUE = os.environ["DATABASE_URL"]


@pytest.fixture(scope="class")
def other_variable():
    os.environ["DATABASE_URL"] = "sqlite:///other.db"
    yield
    del os.environ["DATABASE_URL"]


class TestAFixtureChangesTheVariable:
    def test_inside(self, other_variable, turn):
        assert os.environ["DATABASE_URL"] == "sqlite:///other.db"
        del os.environ["DATABASE_URL"]


def test_it_is_back_after_the_fixture():
    assert os.environ["DATABASE_URL"] == VALUE
    del os.environ["DATABASE_URL"]


def test_it_is_back_after_the_test(monkeypatch):
    assert os.environ["DATABASE_URL"] == VALUE
    monkeypatch.delenv("DATABASE_URL")
