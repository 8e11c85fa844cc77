"""Whoever asks whether a database was used is never told no where it was, from any thread."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_arena._gate import _registry
from pytest_arena._gate._listeners import Gate
from pytest_arena._gate._pooled import PooledConnection
from pytest_arena._gate._registry import Registry
from pytest_arena._postgresql._connections import PostgreSQLHandle
from pytest_arena._process import alive
from pytest_arena._product import ConnectTarget, Key, OpenConnection
from tests.servers.postgresql import address, connect
from tests.servers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = Key("server", "postgresql://here:5432/shop")


class Entry:
    """A pool's, as far as it is looked up."""

    def __init__(self) -> None:
        self.info: dict[str, object] = {}
        self.dbapi_connection = self._dbapi_connection = None
        self.closed = True


def pooled(entry: Any) -> PooledConnection:
    """Create the record of an entry."""
    return PooledConnection.create(entry)


class AskedMeanwhile(dict[Any, Any]):
    """The connections that are out; as soon as one is not, another thread asks."""

    ask: Callable[[], int]
    answer = 0

    def pop(self, *args: Any) -> Any:
        """Take one out."""
        found = super().pop(*args)
        self.answer = self.ask()
        return found


@pytest.fixture(name="entry")
def _entry() -> Any:
    return Entry()


@pytest.fixture(name="gate")
def _gate(entry: Any) -> Iterator[Any]:
    resolver: Any = None  # is asked for nothing here
    gate: Any = Gate(resolver, Registry())
    gate.registry._checkouts = AskedMeanwhile()
    gate.registry._checkouts.ask = gate.registry.usage_of(KEY)
    with closing(connect("postgres")) as connection:
        handle = PostgreSQLHandle(resolver, ConnectTarget(KEY, "", (0, 0), address()), connection)
        record = pooled(entry)
        record.note_opened(OpenConnection(ConnectTarget(KEY, "", (0, 0), address()), handle))
        gate.registry.check_out(record, entry, record.targets())
        yield gate


@pytest.mark.parametrize("end", ["checked_in", "detached"])
def test_what_is_not_out_any_more_is_counted_by_then(gate: Any, entry: Any, end: str) -> None:
    """Between the two a level would be left with a commit in it, as one in which nothing was."""
    seen = gate.registry.usage_of(KEY)()
    getattr(gate, end)(None, entry)
    assert not gate.registry.checked_out()
    assert gate.registry._checkouts.answer > seen


def test_one_that_goes_back_inside_a_transaction_may_be_used_at_any_time(
    gate: Any, entry: Any
) -> None:
    """Its pool rolls nothing back: whoever takes it next may commit what was written before."""
    usage, driver = gate.registry.usage_of(KEY), gate.registry.find(entry).handle._reference()
    driver.execute("BEGIN")
    gate.checked_in(None, entry)
    driver.execute("ROLLBACK")
    assert usage() < usage()


@contextmanager
def another_thread(at_once: Callable[[], None]) -> Iterator[None]:
    """Have something done between any two lines by which a weak dictionary is read."""
    readers = {alive.__code__, Registry.checked_out.__code__}

    def between(frame: Any, event: str, _: object) -> Any:
        if "weakref" in frame.f_code.co_filename or frame.f_code in readers:
            at_once()
        return between

    before = sys.gettrace()
    sys.settrace(between)
    try:
        yield
    finally:
        sys.settrace(before)


class Pooled(NamedTuple):
    """The connections that pools have, as a dictionary of their entries."""

    registry: Registry

    def __setitem__(self, entry: Any, _: object) -> None:
        self.registry.add(pooled(entry))


WALKS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "taken": (lambda gate: gate.registry._checkouts, lambda gate: gate.registry.checked_out()),
    "pooled": (lambda gate: Pooled(gate.registry), lambda gate: gate.drop_altered(1)),
    "active": (
        lambda gate: Pooled(gate.registry),
        lambda gate: gate.registry.active_threads(),
    ),
    "held": (
        lambda gate: gate.registry._core_connections,
        lambda gate: gate.registry._holder_of(None),
    ),
}


@pytest.mark.parametrize("walk", WALKS)
def test_others_may_take_connections_while_they_are_looked_through(gate: Any, walk: str) -> None:
    """As sync endpoints do, in threads: the question is the test's, and so would be the error."""
    (known_to, look), others = WALKS[walk], [Entry(), Entry()]
    known = known_to(gate)
    value = object()

    def take_another() -> None:
        others.append(Entry())
        known[others[-1]] = value

    take_another()
    with another_thread(take_another):
        look(gate)
    assert len(others) > 3


# Another database takes the place of this one.


@pytest.fixture(name="registry")
def _registry_of_patience(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(_registry, "_LONGEST_USE", None)  # whoever waits in vain waits for ever
    return Registry()


@pytest.fixture(name="thread")
def _thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def wait_for(registry: Registry) -> None:
    """Go on when somebody has come for this connection."""
    until(lambda: bool(registry.active_threads()), "a connection is opened")


def wait_for_waiting(registry: Any) -> None:
    """Go on when somebody waits for others, or for the next database."""
    until(lambda: registry._condition._waiters, "somebody waits")


def test_who_opens_a_connection_is_waited_for(
    registry: Registry, thread: ThreadPoolExecutor
) -> None:
    """The server would refuse it: its database is given up just then."""
    entry: Any = Entry()
    seen = list[str]()

    def open_one() -> None:
        registry.reserve(pooled(entry))
        wait_for_waiting(registry)
        seen.append("opened")
        registry.check_in(entry)

    opened = thread.submit(open_one)
    wait_for(registry)
    with registry.usage_of(KEY).alone():
        seen.append("replaced")
    opened.result()
    assert seen == ["opened", "replaced"]


def test_who_comes_waits_for_the_next_database(
    registry: Registry, thread: ThreadPoolExecutor
) -> None:
    """Whoever replaces it may connect himself, and replace another one meanwhile."""
    entry: Any = Entry()
    seen = list[str]()

    def open_one() -> None:
        registry.reserve(pooled(entry))
        seen.append("opened")

    with registry.usage_of(KEY).alone():
        opened = thread.submit(open_one)
        wait_for_waiting(registry)
        with registry.usage_of(KEY).alone():
            registry.reserve(pooled(Entry()))
        seen.append("replaced")
    opened.result()
    assert seen == ["replaced", "opened"]


def test_who_has_one_connection_gets_another(
    registry: Registry, thread: ThreadPoolExecutor
) -> None:
    """A session inside a session: neither would come to an end."""
    one: Any = Entry()
    another: Any = Entry()

    def open_both() -> None:
        registry.reserve(pooled(one))
        wait_for_waiting(registry)
        registry.reserve(pooled(another))
        registry.check_in(another)
        registry.check_in(one)

    opened = thread.submit(open_both)
    wait_for(registry)
    with registry.usage_of(KEY).alone():
        assert not registry.active_threads()
    opened.result()


def test_who_keeps_a_connection_is_waited_for_once(
    registry: Registry, thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener of the app's has one all the time, and opens another where it loses that."""
    one: Any = Entry()
    another: Any = Entry()
    thread.submit(registry.reserve, pooled(one)).result()
    with monkeypatch.context() as patch:
        patch.setattr(_registry, "_LONGEST_USE", 0)
        with registry.usage_of(KEY).alone():
            assert not registry.active_threads()
    thread.submit(registry.reserve, pooled(another)).result()
    with registry.usage_of(KEY).alone():
        assert not registry.active_threads()
