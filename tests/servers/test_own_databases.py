"""Which databases on a server are pytest-arena's, and when they are dropped."""

from __future__ import annotations

import os
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._mysql import _control as mysql_control
from pytest_arena._mysql._server_registry import MySQLRegistry
from pytest_arena._postgresql import _control as postgresql_control
from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql._server_registry import ServerRegistry
from pytest_arena._product import Manifest, _database_registry, _own_databases
from pytest_arena._product._own_databases import STAY, OwnDatabase, parts_of, unused
from pytest_arena.errors import ServerError, TemplateError
from tests.conformance.story_mysql_server import StoryMySQLServer, server_arguments
from tests.mysql.server import address_of
from tests.servers.postgresql import (
    connect,
    database_names,
    login,
    names_on_server,
    own_databases,
    own_registry,
    rows,
)
from tests.servers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product._database_registry import DatabaseRegistry
    from pytest_arena._values import Address
    from tests.servers.crowded import Crowded

MANIFEST = Manifest(1.0, "schema", "a column")


def built(own: DatabaseRegistry, name: str) -> Any:
    return SimpleNamespace(address=own.address_of(name))


class Side:
    """A product's server, and a login for the databases of a test."""

    def __init__(self, product: str, address: Address) -> None:
        self.product = product
        self.address = address
        is_mysql = product == "mysql"
        self._registry: Any = MySQLRegistry if is_mysql else ServerRegistry
        control: Any = mysql_control if is_mysql else postgresql_control
        self._open = control.open_control

    def registry(self) -> DatabaseRegistry:
        made: DatabaseRegistry = self._registry(self.address)
        return made

    def rows(self, statement: str, database: str = "") -> list[tuple[Any, ...]]:
        address = replace(self.address, database=database or self.address.database)
        with closing(self._open(address)) as control:
            return list(control.rows(statement))

    def run(self, statement: str, database: str = "") -> None:
        address = replace(self.address, database=database or self.address.database)
        with closing(self._open(address)) as control:
            control.run(statement)

    def exists(self, name: str) -> bool:
        if self.product == "mysql":
            return bool(self.rows(f"SHOW DATABASES LIKE '{name}'"))
        return bool(self.rows(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"))

    def template(self, own: DatabaseRegistry, fingerprint: str) -> str:
        """Build a template with a row."""
        name = own.create("building")
        self.run("CREATE TABLE t (a int)", name)
        self.run("INSERT INTO t VALUES (1)", name)
        return str(own.finish(built(own, name), fingerprint, MANIFEST))


@cache
def _mysql() -> Address:
    return address_of(StoryMySQLServer().entrance)


@pytest.fixture(params=["postgresql", "mysql"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "mysql":
        server_arguments()
        yield Side("mysql", _mysql())
        return
    with own_registry() as role:
        yield Side("postgresql", login(role))


def test_a_run_drops_its_databases_and_leaves_its_template(side: Side) -> None:
    fingerprint = secrets.token_hex(8)
    with closing(side.registry()) as own:
        live = own.create("live")
        template = side.template(own, fingerprint)
        copy = own.create_later(template=template).result(timeout=60)
        assert side.rows("SELECT a FROM t", copy) == [(1,)]
        with pytest.raises(ServerError, match=r"(?i)arena_template_0000000000000000"):
            own.create("live", template="arena_template_0000000000000000")
        dropped = own.create("live")
        own.drop_later(dropped)
        until(lambda: not side.exists(dropped), "the database is dropped")
    assert not side.exists(live)
    assert not side.exists(copy)
    with closing(side.registry()) as later:
        found = later.find(fingerprint)
        assert found is not None
        assert (found.content, found.manifest.drift) == (template, "a column")
        later.sweep()
        assert side.exists(template)
        assert later.find(fingerprint, newer_than=MANIFEST.built + 1) is None
        later.drop(template)
        assert later.find(fingerprint) is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_run_drops_the_databases_of_a_killed_run(side: Side, number: int) -> None:
    """It leaves those of a living run. A forked child that ends drops nothing of its parent's."""
    with closing(side.registry()) as living:
        kept = living.create("live")
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            living.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.write(writer, side.registry().create("live").encode())
            os.kill(os.getpid(), number)
        os.waitpid(child, 0)
        dead = os.read(reader, 100).decode()
        with closing(side.registry()) as later:
            for _ in range(100):
                later.sweep()
                if not side.exists(dead):
                    break
            assert not side.exists(dead)
            assert side.exists(kept)
    assert not side.exists(kept)


def test_a_process_that_lost_its_connection_lives(side: Side) -> None:
    """It connects again, and takes its locks again. Its threads share the connection."""
    with closing(side.registry()) as own:
        with ThreadPoolExecutor(4) as pool:
            asked = pool.map(own.control.rows, [f"SELECT {number}" for number in range(200)])
        assert [*asked] == [[(number,)] for number in range(200)]
        name = own.create("live")
        is_mysql = side.product == "mysql"
        [(pid,)] = own.control.rows(f"SELECT {'CONNECTION_ID' if is_mysql else 'pg_backend_pid'}()")
        side.run(f"KILL {pid}" if is_mysql else f"SELECT pg_terminate_backend({pid})")
        other = own.create("live")
        with closing(side.registry()) as later:
            later.sweep()
        assert side.exists(name)
        assert side.exists(other)


def test_a_template_in_use_stays(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has used it lives. Templates of a run end with its last process."""
    run = secrets.token_hex(8)  # other workers of this run use the server, too
    monkeypatch.setattr(_own_databases, "run_id", lambda: run)
    first = side.registry()
    second = side.registry()
    fingerprint = secrets.token_hex(8)
    template = side.template(first, fingerprint)
    of_run = side.template(first, f"of-run-{secrets.token_hex(4)}")
    assert of_run.startswith(f"arena_seeded_{second.names.session}_")
    assert first.fingerprint_on(of_run, "its journal").startswith("of-run-")
    if side.product == "postgresql":  # MySQL's sweep asks before it drops
        second.drop(template)
    assert second.find(fingerprint) is not None
    first.close()
    assert {row.name for row in second.listed() if row.is_in_use} >= {template, of_run}
    second.close()
    assert not side.exists(of_run)
    with closing(side.registry()) as later:
        assert template not in {row.name for row in later.listed() if row.is_in_use}
        later.drop(template)
    assert not side.exists(template)


def test_a_lock_excludes_other_runs(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another fingerprint has another lock."""
    monkeypatch.setattr(_database_registry, "LOCK_SECONDS", 0.05)
    with closing(side.registry()) as own, closing(side.registry()) as other:
        with own.locked("shop"):
            with pytest.raises(TemplateError), other.locked("shop"):
                pytest.fail("two at once")
            with other.locked("another"):
                pass
        with other.locked("shop"):
            pass


def test_databases_of_others_stay(side: Side) -> None:
    foreign = f"arena_live_{secrets.token_hex(3)}x"
    side.run(f"CREATE DATABASE {foreign}")
    with closing(side.registry()) as own:
        own.drop(foreign)
        own.sweep()
        assert foreign not in {row.name for row in own.listed()}
        if side.product == "postgresql":  # others use the server of MySQL, too
            assert all(row.reason for row in own.sweep(everything=True))
    assert side.exists(foreign)
    side.run(f"DROP DATABASE {foreign}")


def test_roles_on_one_server_drop_only_their_own_databases() -> None:
    with (
        own_registry() as role,
        own_registry() as another,
        own_databases(role) as own,
        own_databases(another) as other,
    ):
        name = own.create("live")
        other.drop(name)
        other.sweep(everything=True)
        [found] = [row for row in other.listed() if row.name == name]
        assert role in found.reason
        assert names_on_server(beginning=name) == {name}


def test_a_copy_has_the_settings_and_grants_of_its_template(crowded: Crowded) -> None:
    """PostgreSQL copies none. No commit in a copy waits for the disk."""
    question = (
        "SELECT datacl::text, (SELECT array_remove(setconfig, "
        "'synchronous_commit=off')::text FROM pg_db_role_setting WHERE setdatabase = d.oid) "
        "FROM pg_database d WHERE datname = '{}'"
    )
    with closing(ServerRegistry(crowded.by_socket)) as own:
        name = own.create("building")
        for statement in (
            f"ALTER DATABASE {name} SET search_path = '$user', public, 'od d'",
            f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC",
            f"GRANT CREATE ON DATABASE {name} TO pg_monitor",
        ):
            own.control.run(statement)
        template = own.finish(built(own, name), "s", MANIFEST)
        copy = own.create("live", template=template)
        before, after = (own.control.rows(question.format(each)) for each in (template, copy))
        assert before == after
        with closing(open_control(own.address_of(copy))) as app:
            assert app.rows("SHOW search_path") == [('"$user", public, "od d"',)]
            assert app.rows("SHOW synchronous_commit") == [("off",)]


def test_the_newest_kept_databases_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a title, whichever client is connected when they are kept."""
    monkeypatch.setitem(STAY, "kept", 2)
    with own_registry() as role:
        with own_databases(role) as own:
            names = []
            for number in range(3):
                name = own.create("live")
                with connect(name):
                    names.append(own.keep(name, f"test {number}"))
        with own_databases(role) as own:
            assert database_names(own) == {*names[1:]}
            assert rows("SELECT 1", names[2]) == [(1,)]
            titles = {row.manifest.title for row in own.listed() if row.manifest and not row.role}
            assert titles == {"test 1", "test 2"}


def test_names_say_to_whom_a_database_belongs() -> None:
    """A beginning like ours is not enough, even if only the end is the user's."""
    assert parts_of("arena_live_0123abcd_89ef4567_3") == ("live", "0123abcd", "89ef4567")
    assert parts_of("arena_seeded_0123abcd_0123456789abcdef") == ("seeded", "0123abcd", "")
    others = ("arena_live_shop", "arena_tests", "shop", "arena_live_0123abcg")
    for name in (*others, "arena_live_0123abcd_89ef4567_3_mine"):
        assert parts_of(name) is None


def labelled(letter: str, built: float) -> OwnDatabase:
    manifest = replace(MANIFEST, built=built)
    return OwnDatabase(name=f"arena_template_{letter * 16}", manifest=manifest)


def test_the_newest_templates_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAY, "template", 2)
    found = [labelled(str(number), 100.0 + number) for number in range(4)]
    found += [OwnDatabase(name=f"arena_template_{'c' * 16}")]
    found += [OwnDatabase(name=f"arena_template_{'d' * 16}", role="the role x")]
    found += [replace(labelled("e", 200.0), name="arena_kept_0123abcd_89ef4567_9")]
    assert [row.name[-1] for row in unused(found)] == [*"01c"]
    assert [row.name[-1] for row in unused(found, everything=True)] == [*"0123c9"]
