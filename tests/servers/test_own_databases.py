"""Which databases are arena's own, and who may drop them: on a real server."""

from __future__ import annotations

import os
import platform
import secrets
import signal
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql import registry as databases
from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena._product import _own_databases
from pytest_arena._product._own_databases import Label, OwnDatabase, Process, owner_of, unused
from pytest_arena.errors import IsolationError, ServerError
from tests.servers.postgresql import (
    address,
    connect,
    database_names,
    login,
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
    with closing(ServerRegistry(crowded.by_socket, project="shop")) as own:
        name = own.create("building")
        with closing(open_control(own.address_of(name))) as control:
            assert control.ask("SHOW synchronous_commit") == "on"
            if own_setting:
                control.run(f"ALTER DATABASE {name} SET synchronous_commit = {own_setting}")
        own.freeze(name)
        template = own.finish_template(name, fingerprint="s", manifest=own_setting)
        with closing(open_control(own.address_of(own.create("live", template=template)))) as app:
            assert app.ask("SHOW synchronous_commit") == (own_setting or "off")


def test_names_say_whose_they_are(registry: str, template: str) -> None:
    """At most 63 bytes, and the process is told of while it lives."""
    with own_databases(registry, project="shop of Ann") as own:
        names = {own.create("live", template=template) for _ in range(2)}
        assert len(names) == 2
        listed = {one.name: one for one in own.listed()}
        for name in names:
            assert len(name.encode()) <= 63
            assert owner_of(name) == ("live", own.names.session, own.names.process)
            one = listed[name]
            assert one.is_in_use
            assert one.process == Process("shop of Ann", platform.node(), os.getpid())
            assert one.bytes
            assert own.address_of(name).database == name
    assert not any(exists(name) for name in names)
    assert owner_of("arena_live_shop") is owner_of("arena_template_shop") is None


def test_a_finished_template_is_found_and_cannot_be_entered(registry: str) -> None:
    """A later one of the same recipe takes its place; one in the making is none."""
    with own_databases(registry) as own:
        first, second = build(own, shelf="two"), build(own, shelf="two")
        assert first == second
        own.create("building")
        assert own.templates("two") == [(second, "the manifest of two")]
        assert own.templates("other") == []
        with pytest.raises(ControlFailure):
            open_control(own.address_of(first))
        run(f"ALTER DATABASE {first} WITH ALLOW_CONNECTIONS true")
        assert own.templates("two") == []  # somebody may have written to it


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
                own.drop(one, two, "arena_live_01234567_89abcdef_1", foreign)
            assert not exists(one)
            assert not {one, two} & database_names(own)
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
        assert len(database_names(own) & {*names}) <= 16


def test_a_database_of_another_role_is_left_alone_pitfall_138(registry: str) -> None:
    """Its name says that it is ours; its owner says no."""
    role = f"arena_test_{secrets.token_hex(4)}"
    run(f"CREATE ROLE {role}")
    try:
        with own_databases(registry) as own:
            name = own.create("live")
            run(f"ALTER DATABASE {name} OWNER TO {role}")
            own.drop(name)
            assert exists(name)
            assert "owner" in own.left[name]
            run(f"ALTER DATABASE {name} OWNER TO {registry}")
    finally:
        run(f"DROP ROLE {role}")


def test_a_login_that_may_not_create_databases_pitfall_092() -> None:
    """It is told so, and what to do."""
    role = f"arena_test_{secrets.token_hex(4)}"
    run(f"CREATE ROLE {role} LOGIN")
    try:
        theirs = ServerRegistry(login(role))
        with closing(theirs), pytest.raises(ServerError, match="permission denied") as told:
            theirs.create("live")
        assert "CREATEDB" in str(told.value)
    finally:
        run(f"DROP ROLE {role}")


def test_two_roles_on_one_server_pitfall_076_140(registry: str, template: str) -> None:
    """Each sees the other's databases, and neither drops them, living or dead."""
    role = f"arena_test_{secrets.token_hex(4)}"
    run(f"CREATE ROLE {role} LOGIN CREATEDB")
    theirs = ServerRegistry(login(role))
    try:
        name = theirs.create("live")
        with own_databases(registry) as own:
            mine = own.create("live", template=template)
            own.drop(name)
            theirs.drop(mine)
            theirs.sweep(everything=True)
            assert exists(name)
            assert exists(mine)
            found = {one.name: one for one in own.listed()}
            assert role in found[name].reason()
            die(theirs)
            own.sweep()
            assert exists(name)
        assert exists(template)
    finally:
        ServerRegistry(login(role)).close()
        with closing(ServerRegistry(login(role))) as own:
            own.rest()
            own.sweep()
        assert not exists(name)
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
        dead = ServerRegistry(login(registry), project="b")
        mine, theirs = (one.create("live", template=template) for one in (own, dead))
        assert own.sweep() == []
        die(dead)
        with own_databases(registry) as third:
            assert third.rest()
            assert not exists(theirs)
            assert third.sweep() == []
            assert {n for n in database_names(third) if "_live_" in n} == {mine}
        assert exists(mine)


def test_a_template_in_use_is_not_collected_pitfall_090(monkeypatch: pytest.MonkeyPatch) -> None:
    """However old it is, as long as a living run uses it; then by age."""
    with own_registry() as registry:
        with own_databases(registry) as own:
            template = build(own, shelf="old")
            with own_databases(registry) as other:
                assert other.sweep(everything=True) == []
            user = ServerRegistry(login(registry))
            user.used(template)
        monkeypatch.setattr(_own_databases, "TEMPLATE_DAYS", -1)
        with own_databases(registry) as own:
            assert own.sweep() == []
            die(user)
            assert own.sweep() == [template]
            with pytest.raises(IsolationError, match="is gone"):
                own.create("live", template=template)


def test_the_templates_of_a_run_end_with_its_last_process() -> None:
    """Each process has a lock of its own, with the session's number."""
    with own_registry() as registry:
        first, second = ServerRegistry(login(registry)), ServerRegistry(login(registry))
        template = build(first, shelf="of-run-1")
        assert template.startswith(f"arena_seeded_{second.names.session}_")
        second.used(template)
        first.close()
        assert exists(template)
        second.close()
        assert not exists(template)


def labelled(name: str, title: str, used: float, base: str = "") -> OwnDatabase:
    """A template of a project."""
    label = Label("shop", title, 1, used, "", base)
    return OwnDatabase(name=f"arena_template_{name * 16}", label=label)


def test_the_last_two_templates_of_a_project_and_a_title_stay() -> None:
    """By their last use. What was derived goes with its base; rests of builds go at once."""
    found = [labelled(str(number), "schema", 100.0 + number) for number in range(4)]
    found += [labelled("a", "journal 0", 200.0, found[0].name)]
    found += [labelled("b", "journal 9", 200.0, "arena_template_9999999999999999")]
    found += [OwnDatabase(name=f"arena_template_{'c' * 16}")]
    found += [OwnDatabase(name=f"arena_template_{'d' * 16}", role="somebody")]
    left = [one.name[-1] for one in unused(found, 300.0)]
    assert left == ["0", "1", "b", "c"]
    assert [one.name[-1] for one in unused(found, 300.0, everything=True)] == [*"0123abc"]
    late = 300.0 + 15 * 86400
    assert [one.name[-1] for one in unused(found, late)] == [*"0123abc"]


def test_the_newest_kept_databases_stay_pitfall_095(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a title, whoever is connected when they are kept; the run may end."""
    monkeypatch.setattr(_own_databases, "KEPT_STAY", 2)
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
        kept = [one for one in own.listed() if one.kind == "kept" and not one.role]
        titles = {one.name: one.label.title for one in kept if one.label}
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


@pytest.mark.slow
def test_a_run_goes_on_after_its_connection_was_lost(template: str) -> None:
    """It takes its locks again."""
    with own_registry() as name:
        with own_databases(name) as own:
            first = own.create("live")
            run(f"SELECT pg_terminate_backend({own.control.opened().pid})")
            second = own.create("live")
            assert database_names(own) == {first, second}
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
        own = ServerRegistry(login(name))
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
            assert database_names(later) == set()
        assert not any(exists(live) for live in lives)


FORKS = """
import os, sys
from pytest_arena._postgresql.registry import ServerRegistry
from tests.servers.postgresql import database_names, login
own = ServerRegistry(login(sys.argv[1]))
name = own.create("live")
child = os.fork()
if not child:
    assert database_names(own) == {name}
    own.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert database_names(own) == {name}
own.close()
own.close()
assert not database_names(ServerRegistry(login(sys.argv[1])))
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
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena._product._own_databases import Names
from tests.servers.postgresql import login

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

new_name = Names.new

def said(names, kind):
    name = new_name(names, kind)
    print(name, flush=True)
    return name

Names.new = said
Control._execute = counted
own = ServerRegistry(login(sys.argv[1]))
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
            found = database_names(own)
            left = [name for name in found if "_template_" not in name and "_kept_" not in name]
            if not left:
                break
            threading.Event().wait(0.02)
        assert left == []
        assert names & names_on_server() <= database_names(own)
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
        assert limit > 25
