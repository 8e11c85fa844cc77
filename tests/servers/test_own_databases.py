"""Which databases are arena's own, and who may drop them: on a real server."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql import registry as databases
from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena.errors import IsolationError, ServerError
from tests.servers.postgresql import (
    address,
    connect,
    names_on_server,
    own_databases,
    own_registry,
    rows,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.crowded import Crowded


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """One registry for the tests of this module."""
    with own_registry() as name:
        yield name


@pytest.fixture(scope="module")
def template(registry: str) -> str:
    """A small template with settings of its own, which outlives the run that built it."""
    with own_databases(registry) as own:
        return build(own)


def build(own: ServerRegistry, *, shelf: str = "shop") -> str:
    """Build a template."""
    name = own.create("building")
    run("CREATE TABLE t (id serial, a text)", "INSERT INTO t (a) VALUES ('x')", database=name)
    run(
        f"ALTER DATABASE {name} SET search_path = '$user', public, 'od d'",
        f"ALTER DATABASE {name} SET work_mem = '5MB'",
        f"ALTER DATABASE {name} WITH CONNECTION LIMIT 50",
        f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC",
        f"GRANT CREATE ON DATABASE {name} TO pg_monitor WITH GRANT OPTION",
    )
    own.freeze(name)
    return own.finish_template(name, fingerprint=shelf, manifest=f"the manifest of {shelf}")


def exists(name: str) -> bool:
    """Whether a database is there."""
    return name in names_on_server(beginning=name)


SETTINGS = """
SELECT d.datconnlimit, d.datacl::text,
    (SELECT array_remove(s.setconfig, 'synchronous_commit=off')::text
     FROM pg_db_role_setting s WHERE s.setdatabase = d.oid)
FROM pg_database d WHERE d.datname = '{}'
"""


def test_a_copy_has_the_settings_and_grants_of_its_template_pitfall_088(
    registry: str, template: str
) -> None:
    """ALTER DATABASE … SET, rights and the limit of connections; the server copies none."""
    with own_databases(registry) as own:
        copy = own.create("live", template=template)
        assert rows(SETTINGS.format(copy)) == rows(SETTINGS.format(template))
        with connect(copy) as app:
            assert app.execute("SHOW search_path").fetchone() == ('"$user", public, "od d"',)
            assert app.execute("SELECT a FROM t").fetchall() == [("x",)]


@pytest.mark.parametrize("own_setting", ["", "local"])
def test_no_commit_in_a_copy_waits_for_the_disk(crowded: Crowded, own_setting: str) -> None:
    """Its rows are gone after the test. What the schema sets for its database is kept."""
    with closing(ServerRegistry(crowded.by_socket, project="shop", registry="arena_sync")) as own:
        name = own.create("building")
        with closing(open_control(own.address_of(name))) as control:
            assert control.ask("SHOW synchronous_commit") == "on"
            if own_setting:
                control.run(f"ALTER DATABASE {name} SET synchronous_commit = {own_setting}")
        own.freeze(name)
        template = own.finish_template(name, fingerprint="s", manifest=own_setting)
        with closing(open_control(own.address_of(own.create("live", template=template)))) as app:
            assert app.ask("SHOW synchronous_commit") == (own_setting or "off")


def test_names_are_unique_short_and_ours(registry: str, template: str) -> None:
    """They begin with arena_, have at most 63 bytes, and the run is written down with them."""
    with own_databases(registry, project="Grüße " * 20) as own:
        names = {own.create("live", template=template) for _ in range(2)}
        assert len(names) == 2
        listed = {one.name: one for one in own.listed()}
        for name in names:
            assert name.startswith("arena_")
            assert len(name.encode()) <= 63
            one = listed[name]
            assert (one.kind, one.pid, one.alive) == ("live", os.getpid(), True)
            assert one.project == "Grüße " * 20
            assert one.owner == address().user
            assert one.bytes
            assert own.address_of(name).database == name
    assert not any(exists(name) for name in names)


def test_finished_templates_are_found_and_cannot_be_entered(registry: str) -> None:
    """The newest first; one in the making is none."""
    with own_databases(registry) as own:
        first, second = build(own, shelf="two"), build(own, shelf="two")
        own.create("building")
        text = "the manifest of two"
        assert own.templates("two") == [(second, text), (first, text)]
        assert own.templates("other") == []
        with pytest.raises(ControlFailure):
            open_control(own.address_of(first))
        run(f"ALTER DATABASE {first} WITH ALLOW_CONNECTIONS true")
        assert own.templates("two") == [(second, text)]  # somebody may have written to it
        own.drop(first)
        assert exists(first)  # only its age takes a template, or a sweep of everything
    assert exists(second)


def test_a_source_that_somebody_is_connected_to_pitfall_086(registry: str) -> None:
    """A connection to it is ended when it is frozen, and nobody comes in afterwards."""
    with own_databases(registry) as own:
        name = own.create("building")
        with connect(name) as other:
            own.freeze(name)
            with pytest.raises(Exception, match="terminat"):
                other.execute("SELECT 1")
            own.create("live", template=name)
            own.thaw(name)
            assert rows("SELECT 1", name) == [(1,)]


def test_drop_bears_whatever_is_in_its_way_pitfall_087(registry: str, template: str) -> None:
    """Connections, a database that is gone, one that never was, and one of another's."""
    foreign = f"arena_foreign_{secrets.token_hex(4)}"
    run(f"CREATE DATABASE {foreign}")
    try:
        with own_databases(registry) as own:
            one, two = (own.create("live", template=template) for _ in range(2))
            with connect(one):
                run(f"DROP DATABASE {two}")
                own.drop(one, two, "arena_live_0123456789abcdef", foreign)
            assert not exists(one)
            assert not {one, two} & {each.name for each in own.listed()}
            assert exists(foreign)
    finally:
        run(f"DROP DATABASE {foreign}")


@pytest.mark.slow
def test_few_databases_wait_to_be_dropped_in_the_background(registry: str, template: str) -> None:
    """A server that syncs drops them slower than tests end."""
    with own_databases(registry) as own:
        names = [own.create("live", template=template) for _ in range(32)]
        for name in names:
            own.drop_later(name)
        assert len({row.name for row in own.listed()} & {*names}) <= 16


def test_a_database_of_another_role_is_left_alone_pitfall_138(registry: str) -> None:
    """Its row says that it is ours; its owner says no."""
    role = f"arena_test_{secrets.token_hex(4)}"
    run(f"CREATE ROLE {role}")
    try:
        with own_databases(registry) as own:
            name = own.create("live")
            run(f"ALTER DATABASE {name} OWNER TO {role}")
            own.drop(name)
            assert exists(name)
            assert any(name in line and "owner" in line for line in own.left)
            run(f"ALTER DATABASE {name} OWNER TO {address().user}")
    finally:
        run(f"DROP ROLE {role}")


def test_a_login_that_may_not_create_databases_pitfall_092(registry: str) -> None:
    """It is told so, and what to do."""
    role = f"arena_test_{secrets.token_hex(4)}"
    ServerRegistry(address(), registry=registry).close()  # the role may not make that one, either
    run(f"CREATE ROLE {role} LOGIN")
    try:
        theirs = ServerRegistry(replace(address(), user=role), registry=registry)
        with closing(theirs), pytest.raises(ServerError, match="permission denied") as told:
            theirs.create("live")
        assert "CREATEDB" in str(told.value)
    finally:
        run(f"DROP ROLE {role}")


def test_two_roles_on_one_server_pitfall_076_140(registry: str, template: str) -> None:
    """Each sees the other's databases, and neither drops them, living or dead."""
    role = f"arena_test_{secrets.token_hex(4)}"
    run(f"CREATE ROLE {role} LOGIN CREATEDB")
    theirs = ServerRegistry(replace(address(), user=role), registry=registry)
    try:
        name = theirs.create("live")
        with own_databases(registry) as own:
            mine = own.create("live", template=template)
            own.drop(name)
            theirs.drop(mine)
            theirs.sweep(everything=True)
            assert exists(name)
            assert exists(mine)
            assert {one.name: one.owner for one in own.listed()}[name] == role
            die(theirs)
            own.sweep()
            assert exists(name)
            assert any(name in line and role in line for line in own.left)
        assert exists(template)
    finally:
        ServerRegistry(replace(address(), user=role), registry=registry).close()
        with closing(ServerRegistry(replace(address(), user=role), registry=registry)) as own:
            own.rest()
            own.sweep()
        assert not exists(name)
        run(f"DROP OWNED BY {role}", database=registry)
        run(f"DROP ROLE {role}")


def die(own: ServerRegistry) -> None:
    """End a run as kill -9 would: its session is gone, and it does nothing more."""
    own._creating_thread.close(10)
    own._dropping_thread.close(10)
    own._creating_control.close()
    own._dropping_control.close()
    pid = own.control.opened().pid
    own.control.close()
    own._is_closed = True
    wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    """Wait until a backend is gone."""
    end = threading.Event()
    for _ in range(500):
        if not rows(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"):
            return
        end.wait(0.01)
    pytest.fail(f"backend {pid} does not end")


def test_a_sweep_takes_the_dead_and_leaves_the_living_pitfall_076(
    registry: str, template: str
) -> None:
    """Two runs at once; one dies, the next run begins by dropping what it has left."""
    with own_databases(registry, project="a") as own:
        dead = ServerRegistry(address(), project="b", registry=registry)
        mine, theirs = (one.create("live", template=template) for one in (own, dead))
        assert own.sweep() == []
        die(dead)
        with own_databases(registry) as third:
            assert third.rest()
            assert not exists(theirs)
            assert third.sweep() == []
            assert {one.name for one in third.listed() if one.kind == "live"} == {mine}
        assert exists(mine)


def test_a_run_elsewhere_with_the_same_number_pitfall_075(registry: str, template: str) -> None:
    """A process id says nothing: one on another machine lives, one of ours before it does not."""
    with own_databases(registry) as own:
        elsewhere, dead = (ServerRegistry(address(), registry=registry) for _ in range(2))
        lives, died = (one.create("live", template=template) for one in (elsewhere, dead))
        run("UPDATE arena.run SET host = 'elsewhere'", database=registry)
        die(dead)
        own.sweep()
        assert exists(lives)
        assert not exists(died)
        elsewhere.close()


def test_templates_in_use_are_not_collected_pitfall_090() -> None:
    """However old they are, as long as a living run uses them; then by age, or by everything."""
    with own_registry() as registry:
        with own_databases(registry) as own:
            template = build(own, shelf="old")
            grow_old(registry)
            with own_databases(registry) as other:
                assert other.sweep() == other.sweep(everything=True) == []
            user = ServerRegistry(address(), registry=registry)
            user.used(template)
        grow_old(registry)
        with own_databases(registry) as own:
            assert own.sweep() == []
            die(user)
            assert own.sweep() == [template]
            assert not exists(template)
            with pytest.raises(IsolationError, match="is gone"):
                own.create("live", template=template)


def finished(own: ServerRegistry, title: str) -> str:
    """Build a version of what has this title."""
    name = own.create("building")
    own.freeze(name)
    return own.finish_template(name, fingerprint="shop", manifest="", title=title)


@pytest.mark.slow
def test_the_last_two_templates_of_a_project_stay() -> None:
    """Of each kind, by their last use: one for each of two branches, and no third."""
    with own_registry() as registry:
        with own_databases(registry, project="shop-1") as own:
            first, second, third = (finished(own, "schema app:Base") for _ in range(3))
            seeds = [finished(own, "seeded app:seed") for _ in range(2)]
            journals = [finished(own, f"journal 1a2b {name}") for name in (first, second)]
            own.used(first)
            with own_databases(registry, project="shop-1") as other:
                assert other.sweep() == []  # a living run uses them
        with own_databases(registry, project="shop-2") as own:
            others = finished(own, "schema app:Base")
        with own_databases(registry, project="shop-1") as own:
            own.rest()  # it sweeps by itself as it begins
            assert not exists(second)
            own.sweep()
            assert not exists(journals[1])  # nobody can find it without what it is a copy of
            left = {one.name for one in own.listed()}
            assert left == {first, third, *seeds, journals[0], others}


def grow_old(registry: str) -> None:
    """Nobody has used a template for fifteen days."""
    run("UPDATE arena.database SET used = now() - interval '15 days'", database=registry)


def test_the_newest_kept_databases_stay_pitfall_095(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a title, whoever is connected when they are kept; the run may end."""
    monkeypatch.setattr(databases, "KEPT_STAY", 2)
    with own_databases(registry) as own:
        names = []
        for number in range(3):
            name = own.create("live")
            with connect(name):
                names.append(own.keep(name, f"test {number}"))
        assert own.rest()
        assert rows("SELECT 1", names[2]) == [(1,)]
    assert [exists(name) for name in names] == [False, True, True]
    with own_databases(registry) as own:
        titles = {one.name: one.title for one in own.listed() if one.kind == "kept"}
        assert titles == {names[1]: "test 1", names[2]: "test 2"}
        assert own.sweep() == []


def test_a_shelf_is_locked_for_all_but_one(registry: str) -> None:
    """Over runs and threads; whoever waits keeps nobody from asking."""
    with own_databases(registry) as own, own_databases(registry) as other:
        with own.lock("shop", seconds=5):
            for one in (own, other):
                with pytest.raises(TimeoutError), one.lock("shop", seconds=0.05):
                    pytest.fail("two at once")
            with other.lock("another", seconds=5):
                pass
        with other.lock("shop", seconds=5):
            pass


def test_many_runs_make_the_registry_at_once() -> None:
    """Each by a connection of its own; one registry, with a row for each run."""
    with own_registry() as name:
        made: list[ServerRegistry] = []
        failures: list[BaseException] = []

        def begin() -> None:
            try:
                made.append(ServerRegistry(address(), registry=name))
            except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
                failures.append(error)

        threads = [threading.Thread(target=begin) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert rows("SELECT count(*) FROM arena.run", name) == [(6,)]
        for own in made:
            own.close()
        assert rows("SELECT count(*) FROM arena.run", name) == [(0,)]


def test_a_registry_of_somebody_elses_is_not_touched_pitfall_138() -> None:
    """It has tables already and no mark of ours."""
    with own_registry() as name:
        run(f"CREATE DATABASE {name}")
        run("CREATE TABLE precious (a int)", database=name)
        with pytest.raises(ServerError, match="is not pytest-arena's"):
            ServerRegistry(address(), registry=name)
        assert rows("SELECT count(*) FROM precious", name) == [(0,)]


def test_a_registry_that_was_left_half_made_is_finished() -> None:
    """Its maker died between creating it and writing the mark: it is empty, and ours."""
    with own_registry() as name:
        run(f"CREATE DATABASE {name}")
        with own_databases(name) as own:
            assert own.listed() == []


def test_a_registry_of_another_version_is_not_misread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which databases may be dropped: other tables have another name, and are told of."""
    assert re.fullmatch(r"arena_registry_[0-9a-f]{8}", databases.REGISTRY)
    other = f"arena_registry_{secrets.token_hex(4)}"
    with own_registry() as name, own_databases(name) as own:
        run(f"CREATE DATABASE {other}")
        try:
            assert other in databases.look(address(), registry=name).others
            assert name not in databases.look(address(), registry=name).others
            assert own.sweep(everything=True) == []
            assert exists(other)
        finally:
            run(f"DROP DATABASE {other}")


def test_a_sweep_of_everything_leaves_nothing() -> None:
    """Not even the registry, unless somebody uses it; the next one makes it anew."""
    with own_registry() as name:
        with own_databases(name) as own, own_databases(name) as other:
            template, kept = build(own), own.keep(own.create("live"), "kept")
            other.used(template)
            assert own.sweep(everything=True) == [kept]
            assert exists(name)
        with own_databases(name) as own:
            assert own.sweep(everything=True) == [template]
            assert not exists(name)
            again = own.create("live")
            assert exists(again)
            assert exists(name)
        assert not exists(again)


@pytest.mark.parametrize("loss", ["terminated", "registry dropped", "taken for dead"])
@pytest.mark.slow
def test_a_run_goes_on_after_its_connection_was_lost(loss: str, template: str) -> None:
    """What it has made is its own again, and gone when it ends."""
    with own_registry() as name:
        with own_databases(name) as own:
            first = own.create("live")
            if loss == "registry dropped":
                run(f"DROP DATABASE {name} WITH (FORCE)")
            else:
                run(f"SELECT pg_terminate_backend({own.control.opened().pid})")
            if loss == "taken for dead":
                run("DELETE FROM arena.run", "DELETE FROM arena.database", database=name)
            second = own.create("live")
            assert {one.name for one in own.listed()} == {first, second}
            assert all(one.alive for one in own.listed())
            with own_databases(name) as other:
                assert other.sweep() == []
        assert not exists(first)
        assert not exists(second)


@pytest.mark.slow
def test_errors_of_the_background_do_not_end_it(registry: str, template: str) -> None:
    """What could not be made is told to whoever wants it; the next job is done all the same."""
    with own_databases(registry) as own:
        later = own.create_later("live", template="arena_template_0000000000000000")
        with pytest.raises(IsolationError, match="is gone"):
            later.result(timeout=30)
        name = own.create_later("live", template=template).result(timeout=60)
        own.drop_later(name)
        assert own.rest()
        assert not exists(name)
    assert own.create_later("live", template=template).cancelled()
    own.close()


@pytest.mark.parametrize("server", ["slow", "quick"])
@pytest.mark.slow
def test_who_is_in_a_hurry_leaves_what_takes_long_to_a_later_run(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that syncs takes seconds for each database; here nothing can be dropped at all."""
    is_slow = server == "slow"
    interrupted = threading.Event()
    interrupted.set()
    monkeypatch.setattr(databases, "_HURRIED_SECONDS", 0.3 if is_slow else 60.0)
    with own_registry() as name:
        own = ServerRegistry(address(), registry=name)
        lives = [own.create("live") for _ in range(2)]
        with closing(open_control(address())) as other:
            if is_slow:
                other.run("BEGIN")
                other.run("LOCK TABLE pg_catalog.pg_database IN SHARE MODE")
            monkeypatch.setattr(databases, "interrupted", interrupted)
            assert own.close() == (2 if is_slow else 0)
            assert [exists(live) for live in lives] == [is_slow, is_slow]
        with own_databases(name) as later:
            later.sweep()
            later.rest()
            assert later.listed() == []
        assert not any(exists(live) for live in lives)


FORKS = """
import os, sys
from pytest_arena._postgresql.registry import ServerRegistry
from tests.servers.postgresql import address
own = ServerRegistry(address(), registry=sys.argv[1])
name = own.create("live")
child = os.fork()
if not child:
    assert [one.name for one in own.listed()] == [name]
    own.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert [(one.name, one.alive) for one in own.listed()] == [(name, True)]
own.close()
own.close()
assert ServerRegistry(address(), registry=sys.argv[1]).listed() == []
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.slow
def test_a_forked_child_leaves_all_to_its_parent() -> None:
    """It asks by a connection of its own, and its end ends nothing."""
    with own_registry() as name:
        command = [sys.executable, "-W", "ignore", "-c", FORKS, name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


# Counts what is said to the server, and dies before or after the n-th statement was done.
KILLED = """
import os, signal, sys
from pytest_arena._postgresql._control import Control
from pytest_arena._postgresql import registry
from pytest_arena._postgresql.registry import ServerRegistry
from tests.servers.postgresql import address

limit, count = int(sys.argv[2]), 0
before = limit % 2
execute = Control._execute

def counted(self, sql, *, fetch):
    global count
    count += 1
    if before and count == limit // 2:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        return execute(self, sql, fetch=fetch)
    finally:
        if count == limit // 2:
            os.kill(os.getpid(), signal.SIGKILL)

new_name = registry.new_name

def said(kind):
    name = new_name(kind)
    print(name, flush=True)
    return name

registry.new_name = said
Control._execute = counted
own = ServerRegistry(address(), registry=sys.argv[1])
name = own.create("building")
own.freeze(name)
template = own.finish_template(name, fingerprint="s", manifest="m")
live = own.create("live", template=template)
own.keep(live, "title")
later = own.create_later("live", template=template).result()
own.drop_later(later)
own.rest()
own.close()
"""


def die_at(registry: str, limit: int) -> tuple[set[str], bool]:
    """Run it until it is killed; returns the names that it has used, and whether it was."""
    command = [sys.executable, "-c", KILLED, registry, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return set(done.stdout.split()), done.returncode != 0


def check_nothing_is_left(registry: str, names: set[str]) -> None:
    """The next run sweeps all that a dead one has left; what is a template is whole."""
    with own_databases(registry) as own:
        own.rest()
        for _ in range(300):  # its last statement may go on for a while without it
            own.sweep()
            left = [one for one in own.listed() if one.kind not in ("template", "kept")]
            if not left:
                break
            threading.Event().wait(0.02)
        assert left == []
        listed = {one.name for one in own.listed()}
        assert names & names_on_server() <= listed
        assert listed <= names_on_server()
        for name, manifest in own.templates("s"):
            assert manifest == "m"
            own.drop(own.create("live", template=name))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_between_any_two_statements_pitfall_074(registry: str) -> None:
    """A few of the places, from the first statement on; the slow test takes all of them."""
    with own_databases(registry) as own:  # it is there, so that the places are the same ones
        own.rest()
    for limit in (16, 18, 41):
        names, was_killed = die_at(registry, limit)
        assert was_killed
        check_nothing_is_left(registry, names)


# Dies when a kept database that makes room was dropped, and its row is still there.
KILLED_MAKING_ROOM = """
import os, signal, sys
from pytest_arena._postgresql import registry
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena._postgresql.registry._registry_run import RegistryRun
from tests.servers.postgresql import address

own = ServerRegistry(address(), registry=sys.argv[1])
own.rest()
registry.KEPT_STAY, write = 1, RegistryRun._write

def write_and_die(self, statement, line, *, done):
    write(self, statement, line, done=done)
    if statement.startswith("DROP DATABASE"):
        os.kill(os.getpid(), signal.SIGKILL)

RegistryRun._write = write_and_die
for _ in range(2):
    own.keep(own.create("live"), "title")
own.rest()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.slow
def test_killed_while_a_kept_database_makes_room(registry: str) -> None:
    """It is not listed as kept any more, and the next run deletes its row."""
    command = [sys.executable, "-c", KILLED_MAKING_ROOM, registry]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    check_nothing_is_left(registry, set())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_at_every_statement_pitfall_074() -> None:
    """Before each and after each, until it comes to its end."""
    with own_registry() as name:
        for limit in range(2, 500):
            names, was_killed = die_at(name, limit)
            if not was_killed:
                break
            check_nothing_is_left(name, names)
        assert limit > 60
