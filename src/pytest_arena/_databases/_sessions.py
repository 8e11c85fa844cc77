"""Opens ``db_session``, which reads present rows, and commits it before each request."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    Delete,
    Insert,
    TextClause,
    Update,
    create_engine,
    delete,
    event,
    false,
    inspect,
    table,
)
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.util import greenlet_spawn

from pytest_arena._config._supported import kind_of_error
from pytest_arena._databases._app_databases import driver_of, redirected_url
from pytest_arena._databases._builders import session_classes
from pytest_arena._gate._engines import (
    copied_of,
    engine_like,
    known_engines,
    requested_by_engine,
)
from pytest_arena._gate._registry import pooled_of, record_of
from pytest_arena._origin import as_own, is_in_use, user_line
from pytest_arena._process import async_rest, lock_here, run_in_new_loop
from pytest_arena._product import nothing
from pytest_arena._values import PAST_POLICIES
from pytest_arena.errors import ArenaError, ConfigError, PendingWorkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL, Engine, Result
    from sqlalchemy.orm import InstanceState, ORMExecuteState, SessionTransaction

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._gate._registry import DatabaseUsage
    from pytest_arena._product import Database
    from pytest_arena._values import CodeLine


_STEP = 0.001  # seconds between two looks at a session
# SQLAlchemy's methods, for calls that must work while a test mocks or spies on the methods.
_COMMIT = Session.commit
_CLOSE = Session.close


class FreshSession(Session):
    """A session whose queries read again what other connections may have changed.

    A normal ORM session keeps the values in its identity map, so a test would not see the changes
    of a request. Instances keep their values after a commit, and until a query returns them.
    """

    wrote = False
    sessions: Sessions | None = None  # all sessions of the test
    is_async = False  # whether an AsyncSession uses it
    is_flushing = False
    is_reading_again = False
    usage: DatabaseUsage
    # Until the first use: the start of the app may change the choice.
    find_engine: Callable[[], Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["expire_on_commit"] = False
        super().__init__(*args, **kwargs)
        # In this transaction: instances that a flush has inserted, and classes of changed rows.
        self.created: set[object] = set()
        self.changed: set[str] = set()
        # The states of the instances that were loaded before another connection's last change.
        self.stale: set[InstanceState[Any]] = set()
        self.unloaded: list[tuple[object, set[str]]] = []  # instances, and what to load again
        self.seen = -1  # the number of others' changes at the last look
        self.seen_at_begin: int | None = None  # at the begin of the transaction

    @property
    def has_pending_work(self) -> bool:
        """Whether a commit would change what other connections see."""
        return bool(self.wrote or self.pending)

    @property
    def pending(self) -> list[object]:
        """The instances that a commit writes."""
        return [*self.new, *filter(self.is_modified, self.dirty), *self.deleted]

    def changes(self) -> set[str]:
        """Return the classes whose rows a commit changes that existed before the transaction."""
        names = set(self.changed)
        for instance in self.dirty:
            is_changed = self.is_modified(instance, include_collections=False)
            if is_changed and instance_state(instance) not in self.created:
                names.add(type(instance).__name__)
        return names

    def get_bind(self, *args: Any, **kwargs: Any) -> Any:
        """Start the app. SQLAlchemy calls this before each use of a connection."""
        if self.sessions is not None:
            self.sessions.start_app()
        if self.find_engine is not None:
            engine = self.find_engine()
            self.bind = getattr(engine, "sync_engine", engine)
            self.find_engine = None
        if self.seen_at_begin is None or self.is_flushing:  # before a query, `read_again` looks
            self.look()
        if self.seen_at_begin is None:
            self.seen_at_begin = self.seen
        return super().get_bind(*args, **kwargs)

    def flush(self, objects: Any = None) -> None:
        """Call ``Session.flush``."""
        self.wrote = self.has_pending_work
        self.changed = self.changes()
        self.created.update(map(instance_state, self.new))
        self.is_flushing = True
        try:
            super().flush(objects)
        finally:
            self.is_flushing = False

    # What other connections may have changed is read again: an instance gets the values that a
    # query loads, as if it had expired. What the query does not load is loaded after it.

    def look(self) -> None:
        """Note which instances were loaded before another connection's last change."""
        now = self.usage.changes_beside(record_of(self))
        if now != self.seen:
            self.seen = now
            self.stale = set(map(instance_state, self.identity_map.values()))

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``Session.get``, and read from the database what others may have changed."""
        found = super().get(*args, **kwargs)
        self.look()
        if found is None or instance_state(found) not in self.stale or self.is_flushing:
            return found
        if self.autoflush or not instance_state(found).modified:
            kwargs["populate_existing"] = True
        return super().get(*args, **kwargs)

    def read_again(self, execution: ORMExecuteState) -> Result[Any] | None:
        """Let a query read what other connections may have changed."""
        # A text counts as a write. It may be a SELECT, but an extra commit costs little.
        if isinstance(execution.statement, Insert | Update | Delete | TextClause):
            self.wrote = True
        self.look()
        if not self.stale or not execution.is_select or self.is_flushing:
            return None
        if self.autoflush and execution.execution_options.get("autoflush", True):
            self.flush()  # a query does not overwrite what it does not flush
        states = self.stale.intersection(map(instance_state, self.identity_map.values()))
        kept = {state: _take_values(state) for state in states if not state.modified}
        try:
            result = execution.invoke_statement(execution_options={"prebuffer_rows": True})
        finally:
            for state, values in kept.items():
                self._put_back(state, values)
        if not self.is_reading_again:
            self.is_reading_again = True
            try:
                while self.unloaded:
                    self.refresh(*self.unloaded.pop())
            finally:
                self.is_reading_again = False
        return result

    def _put_back(self, state: InstanceState[Any], values: dict[str, Any]) -> None:
        """Give an instance its values back, or note which the query has not loaded."""
        mapper = state.mapper
        missing = {key: values[key] for key in values.keys() - state.dict.keys()}
        keys = {mapper.get_property_by_column(column).key for column in mapper.primary_key}
        if keys <= state.dict.keys():
            self.stale.discard(state)
            names = missing.keys() & {*mapper.column_attrs.keys(), *mapper.relationships.keys()}
            if names:
                self.unloaded.append((state.obj(), names))
        else:
            state.dict.update(missing)
            state.expired_attributes.difference_update(missing)

    def note_end(self, transaction: SessionTransaction) -> None:
        """Note the end of a transaction."""
        if transaction.parent is None:
            self.wrote = False
            self.created.clear()
            self.changed.clear()
            if self.seen_at_begin is not None:  # the transaction may not have seen later changes
                self.seen = min(self.seen, self.seen_at_begin)
                self.seen_at_begin = None


def _take_values(state: InstanceState[Any]) -> dict[str, Any]:
    """Take the values of an instance, so that a query that returns it loads them."""
    values = {key: state.dict.pop(key) for key in state.manager.keys() & state.dict.keys()}
    state.expired_attributes.update(values.keys() & state.mapper.column_attrs.keys())
    return values


event.listen(FreshSession, "do_orm_execute", lambda state: state.session.read_again(state))
event.listen(FreshSession, "after_transaction_end", FreshSession.note_end)


@cache
def _fresh_class(session_class: type[Session]) -> type[FreshSession]:
    if session_class is Session:
        return FreshSession
    return type("FreshSQLModelSession", (FreshSession, session_class), {})


@dataclass(slots=True, eq=False)
class Sessions:
    """The sessions of one test. They are committed before each request, and closed at the end."""

    # Starts the app of the test. Called before each use of a connection.
    start_app: Callable[[], object] = nothing
    # Errors of commits before requests.
    failures: list[Exception] = field(default_factory=list)
    opened: list[FreshSession] = field(default_factory=list)
    # Locks: requests of several tasks or threads commit one after the other.
    _async_locks: Any = field(default_factory=WeakKeyDictionary)  # by event loop
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def open(
        self, engine: Engine | AsyncEngine, usage: DatabaseUsage, find_engine: Callable[[], Any]
    ) -> FreshSession | AsyncSession:
        """Open a session. An async one needs no loop before it is used."""
        sync_class, async_class = session_classes()
        fresh_class = _fresh_class(sync_class)  # type: ignore[arg-type]  # a class has a hash
        session: FreshSession | AsyncSession
        if isinstance(engine, AsyncEngine):
            session = async_class(engine, sync_session_class=fresh_class, expire_on_commit=False)
            fresh: Any = session.sync_session
            fresh.is_async = True
        else:
            session = fresh = fresh_class(engine)
        fresh.sessions = self
        fresh.usage = usage
        fresh.find_engine = find_engine
        fresh.look()
        self.opened.append(fresh)
        return session

    @property
    def has_async_work(self) -> bool:
        """Whether `acommit_async_sessions` has work to commit."""
        return bool(self._to_be_committed(is_async=True))

    async def acommit_async_sessions(self) -> None:
        """Commit the pending work of async sessions. Several tasks may call this at once."""
        async with lock_here(self._async_locks):
            for session in self._to_be_committed(is_async=True):
                while is_in_use(session):  # by a task of the test
                    await async_rest(_STEP)
                with self._committing():
                    await greenlet_spawn(_COMMIT, session)

    def refuse_pending(self, line: CodeLine | None = None) -> None:
        """Raise an error if an async session has pending work. ``line`` sends the request."""
        for session in self.opened:
            if session.is_async and session.has_pending_work:
                raise PendingWorkError(
                    "a sync call in an async test, while db_session has uncommitted work",
                    why="the call cannot await the commit, so it would not see the work",
                    cause=str(line or user_line() or "the call"),
                    fix="await db_session.commit()   before it. Or use `client`, and `async with "
                    "arena.expect_changes(…)`",
                )

    def commit_sync_sessions(self) -> None:
        """Commit the pending work of sync sessions."""
        with self._lock:
            for session in self._to_be_committed(is_async=False):
                with self._committing():
                    _COMMIT(session)

    def _to_be_committed(self, *, is_async: bool) -> list[FreshSession]:
        """Return the sessions to commit before a request, first those with locks."""
        busy = [each for each in self.opened if each.in_transaction() or each.has_pending_work]
        chosen = [session for session in busy if session.is_async == is_async]
        return sorted(chosen, key=lambda session: not session.wrote)

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """Add a note to an error of this commit, because it is not an error of the app."""
        try:
            yield
        except ArenaError:
            raise  # with its own next step
        except Exception as error:
            self.failures.append(error)
            error.add_note(
                "pytest-arena commits the test's pending changes of db_session before each "
                "request. This commit failed, so the app has not got the request.\n"
                "next: db_session.flush() after each add(): the wrong line then raises the error. "
                "Or db_session.rollback() after a flush that failed"
            )
            raise

    def changes(self) -> set[str]:
        """Return the classes whose existing rows the next commit before a request changes."""
        return set().union(*(session.changes() for session in self.opened))

    def pending(self) -> int:
        """Return the number of instances that the next commit before a request writes."""
        return sum(len(session.pending) for session in self.opened)

    def instances(self) -> list[tuple[FreshSession, list[object]]]:
        """Return the present instances of each session."""
        return [(session, [*session.identity_map.values()]) for session in self.opened]

    def return_to(self, noted: list[tuple[FreshSession, list[object]]]) -> None:
        """Forget the instances since then. Close the sync sessions: ``aclose`` closes others."""
        for session in self.opened:
            if not session.is_async:
                _CLOSE(session)
            session.expunge_all()
        for session, instances in noted:
            _add(session, instances)
            session.seen = -1  # the rows are those of an earlier time

    async def aclose(self) -> None:
        """Close the async sessions in the loop of the test. Their next use opens them again.

        They keep their persistent instances, because a fixture's tear-down may refresh one.
        """
        for session in self.opened:
            if session.is_async:
                instances = [*session.identity_map.values()]
                await greenlet_spawn(_CLOSE, session)
                _add(session, instances)

    def close(self) -> None:
        """Close all sessions after the end of the loops. This rolls uncommitted changes back."""
        if self.has_async_work:
            run_in_new_loop(self.aclose())
        while self.opened:  # and forget them: they know this object
            _CLOSE(self.opened.pop())


def _add(session: Session, instances: list[object]) -> None:
    """Add detached instances to a session, without related new instances."""
    for instance in instances:
        # The cascade to a deleted instance raises, after this instance is added.
        with suppress(InvalidRequestError):
            session.add(instance)
    for instance in list(session.new):
        session.expunge(instance)


_CANNOT_WRITE = 2


class Engines:
    """Creates engines for sessions, with the listeners and types of the app's engine."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def given_url(self, database: Database) -> URL:
        """Return the URL of a database with content. Any program may write to it from now on."""
        self._databases.ensure_content(database)
        self._databases.note_published(database.key)
        return database.product.url(database, driver_of(database))

    def open_session(
        self,
        sessions: Sessions,
        database: Database,
        *,
        wants_async: bool,
        past_policies: bool = False,
    ) -> AsyncSession | Session:
        """Open a session on a database.

        With ``past_policies`` the session uses pytest-arena's login. SQLite has no logins.
        """
        past_policies = past_policies and not database.file
        is_async = wants_async and self.is_async(database)

        plain = self._own(database, None, is_async=is_async, past_policies=past_policies)
        find_engine = partial(self.engine, database, is_async=is_async, past_policies=past_policies)
        return sessions.open(plain, self._databases.usage_of(database.key), find_engine)

    def engine(
        self, database: Database, *, is_async: bool, past_policies: bool = False
    ) -> Engine | AsyncEngine:
        """Return an engine on a database, like the one of the app that exists at this moment."""
        # With past_policies a listener of the app may set a role or a tenant.
        app = None if past_policies else self._engine_of_app(database, is_async=is_async)
        return self._own(database, app, is_async=is_async, past_policies=past_policies)

    def _own(
        self, database: Database, app: Engine | None, *, is_async: bool, past_policies: bool
    ) -> Engine | AsyncEngine:
        key = (is_async, past_policies, app is None)
        copied = None if app is None else copied_of(app)
        before, own = database.engines.get(key, (None, None))
        if own is None or copied != before:
            if own is not None:
                own.pool.dispose()
            url = redirected_url(database, driver_of(database))
            if past_policies:
                url = url.set(username=PAST_POLICIES)
            if app is None:
                with as_own():
                    if database.dialect.is_async:
                        app = create_async_engine(url).sync_engine
                    else:
                        app = create_engine(url)
            own = engine_like(app, database, url, is_async=is_async)
            database.engines[key] = (copied, own)
        return AsyncEngine(own) if is_async else own

    # The engine of the app is one of those that exist at this point of the test in each order of
    # the tests: of those that can write and have transactions, the one that a variable names, else
    # the oldest. Without one, an AUTOCOMMIT engine.

    def is_async(self, database: Database) -> bool:
        """Return whether an engine for async code is async."""
        dialects: list[Any] = [engine.dialect for engine in self._engines_of_app(database)]
        return any(dialect.is_async for dialect in dialects or [database.dialect])

    def _engines_of_app(self, database: Database, *, is_async: bool = False) -> list[Engine]:
        level = self._databases.level_owner()
        engines = []
        for engine in known_engines.find():
            known = known_engines.of(engine.dialect)
            if not known.is_here(level) or (is_async and not engine.dialect.is_async):
                continue
            found = known.database
            requested = None if found else requested_by_engine(engine)
            if requested is not None:
                found = self._databases.known.find(requested)
            if found is database:
                engines.append(engine)
        return engines

    def _engine_of_app(self, database: Database, *, is_async: bool) -> Engine | None:
        engines = self._engines_of_app(database, is_async=is_async)
        if not engines[1:]:
            return next(iter(engines), None)
        named = filter(None, map(os.environ.get, self._databases.config.env))
        _, _, place = str(next(named, "")).partition("://")

        def rank(engine: Engine) -> tuple[int, bool]:
            url = engine.url.render_as_string(hide_password=False)
            return self._obstacle(database, engine), place not in url

        best = min(engines, key=rank)
        if self._obstacle(database, best) < _CANNOT_WRITE:
            return best
        raise ConfigError(
            f"no engine of the app can write to the database {database.name}",
            why="db_session writes the rows of tests with the options of one of them",
            cause="\n".join(str(known_engines.of(engine.dialect).line) for engine in engines),
            fix="create an engine that can write in a module that conftest.py imports",
        )

    def _obstacle(self, database: Database, engine: Engine) -> int:
        """Return what hinders rows of tests: 0 nothing, 1 AUTOCOMMIT, 2 the engine cannot write."""
        known = known_engines.of(engine.dialect)
        if known.obstacle is None:
            url = redirected_url(database, engine.dialect.driver)
            own = engine_like(engine, database, url, is_async=False)
            with own.connect() as connection:
                known.obstacle = 0
                for name in inspect(connection).get_table_names()[:1]:
                    try:
                        connection.execute(delete(table(name)).where(false()))
                        pooled: Any = pooled_of(connection)
                        known.obstacle = int(not pooled.handle.is_begun)
                        connection.rollback()  # a close would count as a lost write
                    except DBAPIError as error:  # also of a role that may only insert
                        known.obstacle = _CANNOT_WRITE * (kind_of_error(error) == "read only")
            own.pool.dispose()
        return known.obstacle
