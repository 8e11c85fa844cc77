"""Templates that are databases: every form and driver, found again, killed, waited for."""

from __future__ import annotations

import asyncio
import importlib
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from pytest_arena._postgresql import _templates as _databases
from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena._product import _server_templates
from pytest_arena._values import Stage
from pytest_arena.errors import TemplateError
from tests.servers.waiting import until
from tests.template.project import CREATE, MODELS, SEED
from tests.template.test_template_builders import ASYNC_SEED, BASE

if TYPE_CHECKING:
    import subprocess

    from tests.template.server_project import ServerProject

FUNCTIONS = """
from sqlalchemy import text

CREATE = text("create table dancers (id serial primary key, name text)")

def sync(connection):
    connection.execute(CREATE)

async def asynchronous(connection):
    await connection.execute(CREATE)

def broken(connection):
    connection.execute(text("create tabel dancers"))

async def broken_async(connection):
    await connection.execute(text("create tabel dancers"))

def nothing(connection):
    connection.execute(text("create schema empty"))

def other_name(connection):
    connection.execute(text("alter database no_such_shop set timezone = 'UTC'"))

def no_schema(connection):
    connection.execute(text("create table sales.orders (id int)"))

def no_extension(connection):
    connection.execute(text("create extension no_such_extension"))

def writes_on(connection):
    connection.execute(CREATE)
    left = connection.engine.connect()
    left.execute(text("create table left_open (id int)"))
    LEFT.append(left)

LEFT = []
"""

SCRIPT = "create table dancers (id serial primary key, name text);"

DRIVERS = ("psycopg", "psycopg_async", "psycopg2", "asyncpg")


@pytest.mark.parametrize(
    "driver,schema,seed",
    [
        pytest.param("psycopg", "forms:asynchronous", "seed:seed", marks=pytest.mark.slow),
        pytest.param("psycopg_async", "forms:sync", "later:seed", marks=pytest.mark.slow),
        ("psycopg2", "base:Base", "later:seed"),
        pytest.param("asyncpg", "base:Base", "seed:seed", marks=pytest.mark.slow),
        pytest.param("asyncpg", "forms:sync", "later:seed", marks=pytest.mark.slow),
        pytest.param("asyncpg", "all.sql", "seed:seed", marks=pytest.mark.slow),
    ],
)
def test_each_form_makes_the_tables_by_each_driver(
    on_server: ServerProject, driver: str, schema: str, seed: str
) -> None:
    """An async driver does for sync functions; a sync one's app may have async functions."""
    (on_server.root / "all.sql").write_text(SCRIPT)
    on_server.write(base=BASE, forms=FUNCTIONS, later=f"import helper\n{ASYNC_SEED}")
    on_server.driver, on_server.schema, on_server.seed = driver, schema, seed
    assert on_server.names() == ["Sand"]


def test_all_drivers_share_a_template(on_server: ServerProject) -> None:
    """What stands in it does not depend on who wrote it."""
    found = set()
    for on_server.driver in ("", *DRIVERS):
        found.add(on_server.ensure())
    assert len(found) == 1
    assert on_server.builds() == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "value,says,line,fix",
    [
        ("forms:broken", '"tabel"', "forms.py:13", "correct that line"),
        ("forms:broken_async", '"tabel"', "forms.py:16", "correct that line"),
        ("forms:nothing", "created no table", "models are not imported", "name the module"),
        ("forms:other_name", '"no_such_shop" does not exist', "forms.py:22", "current_database()"),
        ("forms:no_schema", '"sales" does not exist', "forms.py:25", "CREATE SCHEMA IF NOT EXISTS"),
        ("forms:no_extension", "no_such_extension", "forms.py:28", "apt-get install"),
        ("forms:writes_on", "left a transaction open", "forms.py:30", "commit and close"),
    ],
)
def test_a_build_that_fails_says_where_and_leaves_nothing_on_the_server(
    on_server: ServerProject, value: str, says: str, line: str, fix: str
) -> None:
    """By each driver's own error, in the builder's own line, with what to do."""
    on_server.write(forms=FUNCTIONS)
    on_server.schema = value
    on_async = value in {"forms:other_name", "forms:no_schema"}
    for on_server.driver in ("psycopg2", "asyncpg") if on_async else ("psycopg",):
        with pytest.raises(TemplateError) as caught:
            on_server.ensure(stage=Stage.SCHEMA)
        assert says in caught.value.what
        assert line in caught.value.cause
        assert fix in caught.value.fix
        assert on_server.databases() == []


def test_a_seed_without_a_table_says_which_option_makes_it(on_server: ServerProject) -> None:
    """The app may make its tables itself, but the seed comes before it."""
    on_server.schema = ""
    on_server.load("models")
    with pytest.raises(TemplateError) as caught:
        on_server.ensure()
    assert 'relation "dancers" does not exist' in caught.value.what
    assert caught.value.fix.startswith("arena_schema = models:metadata")


def test_a_server_that_is_gone_is_named(
    on_server: ServerProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the builder's."""

    def gone(_: object) -> str:
        raise ControlFailure("server closed the connection unexpectedly")

    monkeypatch.setattr(_databases.DatabaseTemplates, "identity", gone)
    with pytest.raises(TemplateError, match="cannot be stored: server closed") as caught:
        on_server.ensure()
    assert on_server.own.address_of("").server in caught.value.cause


ENUM = """
from sqlalchemy import ARRAY, Column, Enum, Integer, MetaData, String, Table
metadata = MetaData()
kind = Enum("tango", "vals", name="kind")
Table("dancers", metadata, Column("id", Integer, primary_key=True), Column("name", String),
      Column("kind", kind), Column("all", ARRAY(kind)), schema="stage")
Table("dancers", metadata, Column("id", Integer, primary_key=True), Column("name", String))
"""


def test_an_enum_type_is_there_and_create_all_makes_no_second_one_pitfall_028(
    on_server: ServerProject,
) -> None:
    """In a copy, as often as an app or a test calls it; its schema was made as well."""
    on_server.write(models=ENUM)
    on_server.seed = ""
    with on_server.on_a_copy() as engine:
        metadata = importlib.import_module("models").metadata
        metadata.create_all(engine)
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(text("insert into stage.dancers (kind) values ('tango')"))
            types = text("select count(*) from pg_type where typname = 'kind'")
            assert connection.scalar(types) == 1
            assert connection.scalar(text("select kind from stage.dancers")) == "tango"


def test_types_have_the_same_numbers_in_each_copy_pitfall_027(on_server: ServerProject) -> None:
    """What a driver has learnt of a type in one copy holds in the next."""
    on_server.write(models=ENUM)
    on_server.seed = ""
    numbers = {on_server.rows("select 'kind'::regtype::oid::int")[0] for _ in range(2)}
    assert len(numbers) == 1


@pytest.mark.slow
def test_what_makes_a_new_template_and_what_does_not_pitfall_089(
    on_server: ServerProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another value of an enum, and another server; but neither white space nor a path."""
    on_server.write(models=ENUM)
    on_server.seed = ""
    found = [on_server.ensure()]
    on_server.write(models=f"# a remark\n\n{ENUM}\n\n")
    assert on_server.ensure() == found[0]
    on_server.write(models=ENUM.replace('"vals"', '"vals", "milonga"'))
    found.append(on_server.ensure())
    question = _databases.DatabaseTemplates.question
    newer = question.replace("pg_encoding_to_char(encoding)", "'newer'")
    assert newer != question
    monkeypatch.setattr(_databases.DatabaseTemplates, "question", newer)
    found.append(on_server.ensure())
    assert len(set(found)) == 3
    manifests = [manifest for _, manifest in on_server.own.templates(on_server.shelf())]
    assert manifests
    assert not [manifest for manifest in manifests if str(on_server.root.parent) in manifest]


def test_a_listener_of_ones_own_makes_its_schema_itself_pitfall_089(
    on_server: ServerProject,
) -> None:
    """It may do so without IF NOT EXISTS."""
    on_server.write(
        models=ENUM + "from sqlalchemy import DDL, event\n"
        "event.listen(metadata, 'before_create', DDL('create schema stage'))\n"
    )
    on_server.seed = ""
    assert on_server.ensure()


@pytest.mark.slow
def test_rebuild_is_for_what_is_older_than_the_run(on_server: ServerProject) -> None:
    """A second worker of that run finds the new one."""
    first = on_server.ensure()
    began = _server_templates.now()
    second, third = (on_server.ensure(newer_than=began) for _ in range(2))
    assert first == second == third
    assert on_server.builds() == 2


@pytest.mark.slow
def test_a_template_that_somebody_dropped_is_built_again(on_server: ServerProject) -> None:
    """Its manifest alone is no template."""
    template = on_server.ensure()
    on_server.own.control.run(f"ALTER DATABASE {template} IS_TEMPLATE false")
    on_server.own.control.run(f"DROP DATABASE {template}")
    assert on_server.names() == ["Sand"]
    assert on_server.builds() == 2


@pytest.mark.slow
def test_a_template_that_is_collected_at_this_moment_is_not_taken_pitfall_090(
    on_server: ServerProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else drops it after it was found."""
    on_server.seed = ""
    found = on_server.ensure()
    used = on_server.own.used

    dropped: list[str] = []

    def drop_first(name: str) -> None:
        if not dropped:
            on_server.own.control.run(f"ALTER DATABASE {found} IS_TEMPLATE false")
            on_server.own.control.run(f"DROP DATABASE {found}")
            dropped.append(name)
        used(name)

    monkeypatch.setattr(on_server.own, "used", drop_first)
    assert on_server.ensure() == found
    assert dropped == [found]


def test_a_role_that_an_earlier_build_made_says_how_to_make_it(on_server: ServerProject) -> None:
    """Roles belong to the server, whichever of its databases they were made in."""
    (on_server.root / "roles.sql").write_text(f"{SCRIPT}\ncreate role postgres;")
    on_server.schema = "roles.sql"
    with pytest.raises(TemplateError) as caught:
        on_server.ensure()
    assert 'role "postgres" already exists' in caught.value.what
    assert "WHEN duplicate_object" in caught.value.fix


@pytest.mark.slow
def test_three_processes_at_once_build_once_pitfall_074(on_server: ServerProject) -> None:
    """Whoever has the lock builds; the others wait, and find it, without connecting to it."""
    on_server.write(models=CREATE)
    on_server.schema = "models:create"
    on_server.seed = ""
    processes = [on_server.in_another_process() for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = {_end(process) for process in processes}
    assert found == {on_server.ensure()}
    assert on_server.builds() == 1
    allowed = f"select datallowconn from pg_database where datname = '{found.pop()}'"
    assert on_server.own.control.rows(allowed) == [(False,)]


def _end(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    return output.strip()


DYING = SEED.replace(
    "    session.execute",
    """    import os, signal
    if not Path("survive").exists():
        session.execute(text("insert into dancers (name) values ('half')"))
        session.commit()
        os.kill(os.getpid(), signal.SIGKILL)
    session.execute""",
)


@pytest.mark.slow
def test_a_build_that_was_killed_is_never_taken_for_a_finished_one_pitfall_074(
    on_server: ServerProject,
) -> None:
    """The next one builds, and clears away what the dead one left."""
    on_server.write(seed=DYING)
    killed = on_server.in_another_process()
    killed.communicate("go\n", timeout=60)
    assert killed.returncode == -signal.SIGKILL
    until(lambda: bool(on_server.dead()), "the server hears of its end")
    [rest] = on_server.dead()
    (on_server.root / "survive").touch()
    assert on_server.names() == ["Sand"]
    assert on_server.builds() == 2
    assert rest not in on_server.dead()


def test_who_waits_too_long_is_told_where_to_look_pitfall_074(
    on_server: ServerProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves the other one alone."""
    holds, ends = threading.Event(), threading.Event()
    monkeypatch.setattr(_server_templates, "_LOCK_SECONDS", 0.1)
    address = on_server.own.address_of("postgres")
    other = ServerRegistry(address, project="the other")
    other.create("building")
    shelf = on_server.shelf()

    def hold() -> None:
        with other.lock(shelf, seconds=10):
            holds.set()
            ends.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert holds.wait(60)
        with pytest.raises(TemplateError, match="has been building a template for") as caught:
            on_server.ensure()
        assert "arena databases list" in caught.value.fix
    finally:
        ends.set()
        holder.join()
        other.close()


SETTINGS = """
from sqlalchemy import text
def build(connection):
    connection.execute(text("create table dancers (id serial primary key, name text)"))
    connection.execute(text("create schema shop"))
    connection.execute(text("create extension citext schema shop"))
    connection.execute(text(
        "do $$ begin execute format('alter database %I set timezone = ''Asia/Tokyo''', "
        "current_database()); end $$"))
"""


def test_settings_and_extensions_of_the_database_are_in_each_copy_pitfall_088_094(
    on_server: ServerProject,
) -> None:
    """Those that the schema's builder set, below a seed."""
    on_server.write(settings=SETTINGS)
    on_server.schema = "settings:build"
    asked = "select current_setting('timezone'), 'A'::shop.citext operator(shop.=) 'a'"
    assert on_server.rows(asked) == [("Asia/Tokyo", True)]


async def _names(on_server: ServerProject) -> list[str]:
    return on_server.names()


@pytest.mark.slow
def test_an_async_builder_works_where_a_loop_is_running(on_server: ServerProject) -> None:
    """The first connection of a run may be made in the middle of a request."""
    on_server.write(forms=FUNCTIONS, seed=f"import helper\n{ASYNC_SEED}")
    on_server.schema, on_server.driver = "forms:asynchronous", "asyncpg"
    assert asyncio.run(_names(on_server)) == ["Sand"]


@pytest.mark.slow
def test_a_sync_session_over_an_async_driver_commits_and_rolls_back_as_ever(
    on_server: ServerProject,
) -> None:
    """A seed may end its transactions itself."""
    on_server.write(
        models=MODELS,
        seed="from sqlalchemy import text\n"
        "def seed(session):\n"
        "    for name in ('One', 'Two', 'Three'):\n"
        "        session.execute(text(f\"insert into dancers (name) values ('{name}')\"))\n"
        "        session.rollback() if name == 'Two' else session.commit()\n",
    )
    on_server.driver = "asyncpg"
    assert on_server.names() == ["One", "Three"]
