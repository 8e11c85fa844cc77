"""Wherever an engine is made, and however its file is named, it lands in the test's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST = """
from app import create_engine
import pytest

from_conftest = create_engine("sqlite:///dev.db")

@pytest.fixture
def by_fixture():
    made = create_engine("sqlite:///dev.db")
    yield made
    made.dispose()
"""

PLACES = """
import pytest
from contextlib import asynccontextmanager
from app import aadd, add, anames, create_async_engine, create_engine, engine, names, text
from conftest import from_conftest

here = create_engine("sqlite:///dev.db")

def test_engines_of_one_url_made_anywhere_mean_one_database(by_fixture):
    inside = create_engine("sqlite:///dev.db")
    engines = [engine, from_conftest, here, by_fixture, inside]
    for number, made in enumerate(engines):
        add(made, f"Dancer {number}")
    assert [len(names(made)) for made in engines] == [5] * 5
    inside.dispose()

@asynccontextmanager
async def lifespan():
    made = create_async_engine("sqlite+aiosqlite:///dev.db")
    yield made
    await made.dispose()

@pytest.mark.parametrize("turn", range(3))
async def test_an_engine_made_in_the_lifespan_of_each_test_pitfall_012(turn):
    async with lifespan() as made:
        assert await anames(made) == []
        await aadd(made, "Ruby")
        assert names(engine) == ["Ruby"]

async def test_a_sync_and_an_async_engine_on_one_file_pitfall_019_104():
    made = create_async_engine("sqlite+aiosqlite:///dev.db")
    for number in range(10):
        await aadd(made, f"async {number}")
        add(engine, f"sync {number}")
    assert names(engine) == await anames(made)
    assert len(names(engine)) == 20
    await made.dispose()

NAMES = {
    "relative": "sqlite:///dev.db",
    "dotted": "sqlite:///./data/../dev.db",
    "linked": "sqlite:///link.db",
    "read_only": "sqlite:///file:dev.db?mode=ro&uri=true",
    "by_uri": "sqlite:///file:dev.db?uri=true",
    "immutable": "sqlite:///file:dev.db?immutable=1&uri=true",
}

@pytest.mark.parametrize("url", NAMES.values(), ids=NAMES)
def test_the_file_has_many_names_pitfall_102(url):
    made = create_engine(url)
    add(engine, "Ruby")
    assert names(made) == ["Ruby"]
    made.dispose()

def test_a_read_only_engine_stays_read_only_pitfall_102():
    made = create_engine(NAMES["read_only"])
    with pytest.raises(Exception, match="readonly"):
        add(made, "Ruby")
    made.dispose()

def test_an_engine_keeps_its_database_when_the_folder_changes_pitfall_102(monkeypatch, tmp_path):
    by_uri = create_engine(NAMES["by_uri"])
    names(by_uri)
    monkeypatch.chdir(tmp_path)
    add(engine, "Ruby")
    engine.dispose()
    by_uri.dispose()
    assert names(engine) == names(by_uri) == ["Ruby"]
    assert list(tmp_path.iterdir()) == []
    by_uri.dispose()

"""


def test_every_engine_lands_in_the_tests_database_pitfall_102_104(tmp_path: Path) -> None:
    """Engines of any place and kind, and any name of the file, mean the test's database."""
    example = small_example(tmp_path, conftest=CONFTEST, test_places=PLACES)
    with untouched(example):
        (example.folder / "data").mkdir()
        (example.folder / "link.db").symlink_to("dev.db")
        example.run().expect(passed=13)
    assert sorted(path.name for path in example.folder.glob("*.db")) == ["dev.db", "link.db"]


MEMORY = """
import pytest
from app import Base, aadd, add, anames, create_async_engine, create_engine, engine, names, text
from sqlalchemy.pool import SingletonThreadPool, StaticPool

static = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
plain = create_engine("sqlite://")
async_memory = create_async_engine("sqlite+aiosqlite://")
SHARED = "mode=memory&cache=shared&uri=true"
named = create_engine(f"sqlite:///file:shared?{SHARED}", poolclass=SingletonThreadPool)
named_async = create_async_engine(f"sqlite+aiosqlite:///file:shared?{SHARED}", poolclass=StaticPool)
other_name = create_engine(f"sqlite:///file:other?{SHARED}", poolclass=SingletonThreadPool)
for each in (static, plain, named, other_name):
    Base.metadata.create_all(each)

@pytest.mark.parametrize("turn", [1, 2])
def test_each_memory_engine_is_a_database_of_its_own_pitfall_099(turn):
    add(static, "static")
    add(plain, "plain")
    add(other_name, "other")
    assert [names(static), names(plain), names(other_name)] == [["static"], ["plain"], ["other"]]

@pytest.mark.parametrize("turn", [1, 2])
async def test_async_memory_pitfall_011(turn):
    async with async_memory.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await aadd(async_memory, "Ruby")
    assert await anames(async_memory) == ["Ruby"]

@pytest.mark.parametrize("turn", [1, 2])
async def test_named_shared_memory_is_one_database_pitfall_100(turn):
    await aadd(named_async, "async")
    add(named, "sync")
    assert names(named) == await anames(named_async) == ["async", "sync"]

"""


def test_memory_engines_pitfall_099_100(tmp_path: Path) -> None:
    """A memory engine has a database of its own, brought back after each test, gone with it."""
    example = small_example(tmp_path, test_memory=MEMORY)
    config = example.change("pytest.ini", "arena_schema = app:Base\n", "")
    config.run().expect(passed=6)


TEMPORARY = """
import sqlite3
import pytest
from pathlib import Path
from app import add, create_engine, engine, names

def test_files_in_the_temporary_folder_are_the_tests_own(tmp_path, tmp_path_factory):
    for file in (tmp_path / "own.db", tmp_path_factory.mktemp("x") / "own.db"):
        made = create_engine(f"sqlite:///{file}")
        with made.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (a)")
        made.dispose()
        assert file.stat().st_size
        raw = sqlite3.connect(file)
        assert raw.execute("SELECT count(*) FROM t").fetchone() == (0,)
        raw.close()

def test_a_link_in_the_temporary_folder_leads_into_the_arena(tmp_path):
    (tmp_path / "soft.db").symlink_to(Path("dev.db").absolute())
    soft = create_engine(f"sqlite:///{tmp_path}/soft.db")
    add(soft, "Ruby")
    assert names(engine) == ["Ruby"]
    soft.dispose()

def test_what_arena_allow_names_is_reached():
    for file in ("allowed.db", "data/x-1.db"):
        for reach in (create_engine(f"sqlite:///{file}"), create_engine(f"sqlite:///./{file}")):
            add(reach, f"{reach.url}")
            reach.dispose()
        raw = sqlite3.connect(file)
        assert raw.execute("SELECT count(*) FROM dancers").fetchone() == (3,)
        raw.close()

KEPT = []

def test_a_connection_to_an_allowed_database_may_outlive_its_test():
    KEPT.append(create_engine("sqlite:///allowed.db").connect())
    assert KEPT[0].exec_driver_sql("SELECT count(*) FROM dancers").scalar_one() > 0

def test_it_is_still_open():
    assert KEPT[0].exec_driver_sql("SELECT count(*) FROM dancers").scalar_one() > 0
    KEPT[0].close()
    KEPT.pop().engine.dispose()
"""


def test_temporary_and_allowed_files_pass_and_links_to_the_apps_do_not(tmp_path: Path) -> None:
    """Only this run's temporary folder, and what arena_allow names, is reached."""
    example = small_example(tmp_path, test_temporary=TEMPORARY)
    allowing = example.change(
        "pytest.ini", "[pytest]", "[pytest]\narena_allow =\n  allowed.db\n  data/*.db"
    )
    with untouched(example):
        for name in ("allowed.db", "data/x-1.db"):
            with untouched(example, name):
                pass
        allowing.run().expect(passed=5)
