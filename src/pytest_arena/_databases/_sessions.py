"""``db_session``: a session on the test's database that neither hides nor keeps anything."""

from __future__ import annotations

import importlib
import sys
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from weakref import WeakSet

from sqlalchemy import Delete, Insert, TextClause, Update, create_engine, inspect
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, make_transient, make_transient_to_detached
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._databases._app_databases import dialects, driver_of, led_url
from pytest_arena._gate._engines import (
    asked_by_engine,
    engine_like,
    listen_to_sessions,
    sync_twin,
)
from pytest_arena._gate._known_engines import known_engines
from pytest_arena._gate.loops._any_loop import AnyLoopMutex
from pytest_arena._origin import user_line
from pytest_arena._process import run_in_new_loop
from pytest_arena._values import PAST_POLICIES
from pytest_arena.errors import ArenaError, ConfigError, PendingWorkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.orm import InstanceState, ORMExecuteState, SessionTransaction

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._product import Database


_Session = TypeVar("_Session", "FreshSession", AsyncSession)

# What the sync and the async sessions of a test hold.
Memory = tuple[list[tuple["FreshSession", "Kept"]], list[tuple[AsyncSession, "Kept"]]]


class FreshSession(Session):
    """Reads what stands in the database, also where it has the row already.

    An ORM session normally answers from its identity map, so that a test would not see what
    the request has changed. Instances keep their values after a commit.
    """

    wrote = False
    reads = 0  # how often it may have read a row anew
    sessions: Sessions | None = None  # all of the test
    is_committed_before_requests = True
    is_flushing = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["expire_on_commit"] = False
        super().__init__(*args, **kwargs)

    @property
    def has_pending_work(self) -> bool:
        """Whether somebody else would see something else after a commit."""
        return bool(self.wrote or self.new or self.dirty or self.deleted)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Session.get``, from the database."""
        # AsyncSession passes False, its own default.
        kwargs["populate_existing"] = (
            kwargs.get("populate_existing") or self.may_overwrite()
        )
        return super().get(*args, **kwargs)

    def may_overwrite(self, *, is_flushed_before: bool = True) -> bool:
        """Whether a query may give instances the values of the database.

        It would take a change from them that it does not flush first.
        """
        flushes = self.autoflush and is_flushed_before and not self.is_flushing
        return flushes or not self.dirty

    def get_bind(self, *args: Any, **kwargs: Any) -> Any:
        """Start the app, as SQLAlchemy calls this before each use of a connection."""
        if self.sessions is not None:
            self.sessions.start_app()
        return super().get_bind(*args, **kwargs)

    # What these write is not in `new` or `dirty`.

    def connection(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Session.connection``."""
        self.wrote = True
        return super().connection(*args, **kwargs)

    def bulk_save_objects(self, *args: Any, **kwargs: Any) -> None:
        """As ``Session.bulk_save_objects``."""
        self.wrote = True
        super().bulk_save_objects(*args, **kwargs)

    def bulk_insert_mappings(self, *args: Any, **kwargs: Any) -> None:
        """As ``Session.bulk_insert_mappings``."""
        self.wrote = True
        super().bulk_insert_mappings(*args, **kwargs)

    def bulk_update_mappings(self, *args: Any, **kwargs: Any) -> None:
        """As ``Session.bulk_update_mappings``."""
        self.wrote = True
        super().bulk_update_mappings(*args, **kwargs)

    def flush(self, objects: Any = None) -> None:
        """As ``Session.flush``."""
        self.wrote = self.has_pending_work
        was_flushing = self.is_flushing
        self.is_flushing = True
        try:
            super().flush(objects)
        finally:
            self.is_flushing = was_flushing

    def close(self) -> None:
        """As ``Session.close``."""
        # By this very frame the gate knows that what is lost is the test's own, and not the app's.
        super().close()


def _read_anew(state: ORMExecuteState) -> None:
    """Whatever is about to be executed, by whichever of a session's methods."""
    session = cast("FreshSession", state.session)
    session.reads += 1
    if isinstance(state.statement, Insert | Update | Delete | TextClause):
        session.wrote = True  # a text may be a SELECT: one commit too many costs little
    is_flushed_before = state.execution_options.get("autoflush", True)
    if state.is_select:
        is_flushed_before = getattr(state.load_options, "_autoflush", True)
    if session.may_overwrite(is_flushed_before=is_flushed_before):
        state.update_execution_options(populate_existing=True)


def _has_ended(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        cast("FreshSession", session).wrote = False


listen_to_sessions(FreshSession, "do_orm_execute", _read_anew)
listen_to_sessions(FreshSession, "after_transaction_end", _has_ended)


@cache
def _session_classes(
    *, is_sqlmodel: bool
) -> tuple[type[FreshSession], type[AsyncSession]]:
    """Return what sessions are made of: SQLModel's, which have ``exec``, where it is in use."""
    if not is_sqlmodel:
        return FreshSession, AsyncSession
    sync = importlib.import_module("sqlmodel").Session
    asynchronous = importlib.import_module("sqlmodel.ext.asyncio.session").AsyncSession
    return type("FreshSQLModelSession", (FreshSession, sync), {}), asynchronous


class Kept:
    """The instances that a session holds at one time, and what is loaded of each."""

    def __init__(self, session: Session) -> None:
        self._instances = [(instance, _loaded(instance)) for instance in session]

    def restore(self, session: Session) -> None:
        """Have the session hold these and no others, with the values of the database."""
        session.rollback()
        session.expunge_all()
        for instance, _ in self._instances:
            if inspect(instance).was_deleted:
                make_transient(instance)
                make_transient_to_detached(instance)
            session.add(instance)
        for added in list(session.new):  # by the cascade of a collection
            session.expunge(added)
        session.expire_all()
        for instance, names in self._instances:
            session.refresh(instance, names)
        session.commit()


def _loaded(instance: Any) -> list[str]:
    state = inspect(instance)
    return [part.key for part in state.mapper.attrs if part.key not in state.unloaded]


class Starter(Protocol):
    """Starts the app of a test."""

    def start(self) -> bool:
        """Start the app of a sync test. Return False in an async test, whose loop does not run."""

    async def astart(self) -> None:
        """Start the app in the running loop."""


@dataclass(slots=True, eq=False)
class Sessions:
    """The sessions of one test: committed before each request, closed at the end."""

    is_used: bool = False  # whether any was opened
    has_committed: bool = False  # before a request
    starter: Starter | None = None  # called before the first use of a connection
    _sync: list[FreshSession] = field(default_factory=list)
    _async: list[AsyncSession] = field(default_factory=list)
    _async_turn: AnyLoopMutex | None = None  # of gathered requests, once there is one
    # Of sync requests that are made in several threads at once.
    _turn: threading.RLock = field(default_factory=threading.RLock)

    def open_sync(self, engine: Engine) -> FreshSession:
        """Open a sync session."""
        session = _session_classes(is_sqlmodel="sqlmodel" in sys.modules)[0](engine)
        session.sessions = self
        self._sync.append(session)
        self.is_used = True
        return session

    def open_async(self, engine: AsyncEngine) -> AsyncSession:
        """Open an async session; nothing needs a loop before it is used."""
        sync, kind = _session_classes(is_sqlmodel="sqlmodel" in sys.modules)
        session = kind(engine, sync_session_class=sync, expire_on_commit=False)
        _fresh(session).sessions = self
        self._async.append(session)
        self._async_turn = self._async_turn or AnyLoopMutex()
        self.is_used = True
        return session

    def start_app(self) -> None:
        """Start the app before the first row of the test, as in production."""
        starter = self.starter
        if starter is None:
            return
        if in_greenlet():
            self.starter = None
            await_only(starter.astart())
        elif starter.start():
            self.starter = None

    async def acommit(self) -> None:
        """Commit pending work, so that a request sees it; also under gathered requests."""
        self.commit_sync_sessions()
        async with self._async_turn or nullcontext():
            for session in _to_be_committed(self._async):
                self.has_committed = True
                with _said_whose("await "):
                    await session.commit()

    def commit(self) -> None:
        """Commit pending work before a sync request.

        Raises:
            PendingWorkError: the work is in an async session, which cannot be awaited here.
        """
        self.commit_sync_sessions()
        sessions = [_fresh(session) for session in self._async]
        committed = [
            session for session in sessions if session.is_committed_before_requests
        ]
        if any(session.has_pending_work for session in committed):
            raise PendingWorkError(
                "a sync request inside an async test, while db_session has work not committed",
                why="the request would not see it: a sync client cannot await the commit",
                cause=str(user_line() or "the request"),
                fix="await db_session.commit()   before the request, or use `client`",
            )

    def commit_sync_sessions(self) -> None:
        """Commit the pending work of sync sessions."""
        with self._turn:
            for session in _to_be_committed(self._sync):
                self.has_committed = True
                with _said_whose(""):
                    session.commit()

    def remember(self) -> Memory:
        """Return what the sessions hold; nothing is pending."""
        kept = [(session, Kept(session)) for session in self._sync]
        return kept, [(session, Kept(session.sync_session)) for session in self._async]

    async def arestore(self, memory: Memory) -> None:
        """As ``restore``, for all sessions, in the loop of the test."""
        await self.aclose()
        self.restore(memory)
        for session, kept in memory[1]:
            await session.run_sync(kept.restore)
        self._async = [session for session, _ in memory[1]]

    def restore(self, memory: Memory) -> None:
        """Have the sync sessions hold what they held; those that were opened since are closed."""
        known = [session for session, _ in memory[0]]
        for session in self._sync:
            if session not in known:
                session.close()
        for session, kept in memory[0]:
            kept.restore(session)
        self._sync = known

    def pending(self) -> int:
        """Return how many instances wait to be written by sessions that are to be committed."""
        sessions = [each for each in self._all() if each.is_committed_before_requests]
        return sum(
            len(each.new) + len(each.dirty) + len(each.deleted) for each in sessions
        )

    def held(self) -> WeakSet[InstanceState[Any]]:
        """Return the states of the instances that the sessions hold."""
        return WeakSet(
            inspect(instance) for session in self._all() for instance in session
        )

    def reads(self) -> int:
        """Return how often they may have read a row."""
        return sum(each.reads for each in self._all())

    def _all(self) -> list[FreshSession]:
        return [*self._sync, *map(_fresh, self._async)]

    def roll_back(self) -> None:
        """Give up what is pending in sync sessions."""
        for session in self._sync:
            session.rollback()

    async def aclose(self) -> None:
        """Close all, in the loop of the test. They open again when they are used again."""
        for session in self._async:
            await session.close()

    def close(self) -> None:
        """Close all, after the loops are gone. What was not committed is rolled back."""
        for session in self._sync:
            session.close()
        if any(session.in_transaction() for session in self._async):
            run_in_new_loop(self.aclose())


@contextmanager
def _said_whose(awaited: str) -> Iterator[None]:
    """An error of this commit is raised where the test requests, as if the app had failed."""
    try:
        yield
    except ArenaError:  # says itself what is wrong
        raise
    except Exception as error:
        error.add_note(
            "this is work of the test's own that was pending in db_session, and is committed "
            f"before each request; the app was not asked yet\nnext: {_next_step(error, awaited)}"
        )
        raise


def _next_step(error: Exception, awaited: str) -> str:
    if isinstance(error, PendingRollbackError):
        return f"{awaited}db_session.rollback()   after the flush that failed"
    if isinstance(error, StaleDataError):
        read = f"{awaited}db_session.get(…)"
        return f"{read}   before you change the row: a request may have deleted it"
    return f"{awaited}db_session.flush()   after each add(), which fails at the line that is wrong"


def _to_be_committed(sessions: list[_Session]) -> list[_Session]:
    """Return the sessions to commit before a request, those first that hold locks."""
    chosen = [session for session in sessions if _is_to_be_committed(session)]
    return sorted(chosen, key=lambda session: not _fresh(session).wrote)


def _is_to_be_committed(session: AsyncSession | FreshSession) -> bool:
    fresh = _fresh(session)
    if not fresh.is_committed_before_requests:
        return False
    return session.in_transaction() or fresh.has_pending_work


def _fresh(session: AsyncSession | FreshSession) -> FreshSession:
    return cast("FreshSession", getattr(session, "sync_session", session))


class Engines:
    """Made like the app's engine where there is one, so that PRAGMAs and types are the same."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._sync: dict[Database, Engine] = {}
        self._async: dict[Database, AsyncEngine] = {}
        # Engines that use arena's login, past the app's policies.
        self._past_sync: dict[Database, Engine] = {}
        self._past_async: dict[Database, AsyncEngine] = {}

    def given_url(self, database: Database) -> URL:
        """Return the URL of a database, which is there on return.

        From here on anybody may write to it, at any time, and no engine tells of it.
        """
        url = self._url(database)
        self._databases.given_out(database.key)
        return url

    def shown_url(self, database: Database) -> str:
        """Return where a database is, for a command line: a file, or a URL."""
        url = self._url(database).set(drivername=database.product.name, password=None)
        return database.file or url.render_as_string()

    def engine(self, database: Database) -> Engine | AsyncEngine:
        """Return the engine on a database, of the kind of the app's."""
        return (
            self._async_on(database)
            if database.dialect.is_async
            else self._sync_on(database)
        )

    def open_session(
        self,
        sessions: Sessions,
        database: Database,
        *,
        wants_async: bool,
        commit_before_requests: bool = True,
        past_policies: bool = False,
    ) -> AsyncSession | Session:
        """Open a session on a database.

        With ``past_policies`` the session uses arena's login. SQLite has no logins.

        Raises:
            ConfigError: policies limit that login too.
        """
        past_policies = past_policies and not database.file
        if past_policies:
            self._databases.ensure(database)
            tables = database.product.policed_for_arena(database)
            if tables:
                raise _policed(tables)
        session: AsyncSession | Session
        if wants_async and database.dialect.is_async:
            async_on = self._async_past_policies if past_policies else self._async_on
            session = sessions.open_async(async_on(database))
            _fresh(session).is_committed_before_requests = commit_before_requests
        else:
            sync_on = self._sync_past_policies if past_policies else self._sync_on
            session = sessions.open_sync(sync_on(database))
            session.is_committed_before_requests = commit_before_requests
        return session

    # These engines do not have the app's listeners, which may set a role or a tenant.

    def _sync_past_policies(self, database: Database) -> Engine:
        if database not in self._past_sync:
            url = led_url(database, _sync_driver(database)).set(username=PAST_POLICIES)
            engine = create_engine(url)
            self._past_sync[database] = engine
            self._databases.known.add_own(engine, database)
        return self._past_sync[database]

    def _async_past_policies(self, database: Database) -> AsyncEngine:
        if database not in self._past_async:
            url = led_url(database, driver_of(database)).set(username=PAST_POLICIES)
            engine = create_async_engine(url)
            self._past_async[database] = engine
            self._databases.known.add_own(engine.sync_engine, database)
        return self._past_async[database]

    def _sync_on(self, database: Database) -> Engine:
        if database not in self._sync:
            # The app's own kind first: a test may have a sync engine of its own on an async app.
            kind = database.dialect.is_async
            like = self._engine_of_app(database, kinds=(kind, not kind))
            if like is not None and not like.dialect.is_async:
                engine = engine_like(like, led_url(database, driver_of(database)))
            else:
                url = led_url(database, _sync_driver(database))
                engine = create_engine(url) if like is None else sync_twin(like, url)
            self._sync[database] = engine
            self._databases.known.add_own(engine, database)
        return self._sync[database]

    def _async_on(self, database: Database) -> AsyncEngine:
        if database not in self._async:
            like = self._engine_of_app(database, kinds=(True,))
            url = led_url(database, driver_of(database))
            engine = (
                AsyncEngine(engine_like(like, url))
                if like
                else create_async_engine(url)
            )
            self._async[database] = engine
            self._databases.known.add_own(engine.sync_engine, database)
        return self._async[database]

    def _url(self, database: Database) -> URL:
        """The URL under which anybody reaches the database, by the app's own driver."""
        self._databases.ensure(database)
        return database.product.url(database, driver_of(database))

    def _engine_of_app(
        self, database: Database, kinds: tuple[bool, ...]
    ) -> Engine | None:
        """The oldest engine of the app's on this database, of the first of these kinds it has."""
        engines = [
            engine for engine in known_engines.find() if self._means(engine, database)
        ]
        fit = [engine for engine in engines if engine.dialect.is_async in kinds]
        return min(
            fit, key=lambda engine: kinds.index(engine.dialect.is_async), default=None
        )

    def _means(self, engine: Engine, database: Database) -> bool:
        known = self._databases.known
        if (
            asked := asked_by_engine(engine)
        ) is None or asked.product not in known.products:
            return False
        return known.find(asked) is database

    def close(self, databases: list[Database]) -> None:
        """Close the engines on databases that are no more."""
        for database in databases:
            for engines in (self._sync, self._past_sync):
                engine = engines.pop(database, None)
                if engine is not None:
                    engine.dispose()
            for async_engines in (self._async, self._past_async):
                async_engine = async_engines.pop(database, None)
                if async_engine is not None:
                    run_in_new_loop(async_engine.dispose())


def _policed(tables: tuple[str, ...]) -> ConfigError:
    return ConfigError(
        f"arena.session(past_policies=True): policies on {', '.join(tables)} limit it too",
        why="arena's login on this server is no superuser, and these tables force their policies "
        "on their owner. The session could not read or write rows of other tenants",
        cause=str(user_line() or "arena.session(past_policies=True)"),
        fix="arena_database = own   (or the URL of a superuser, or a role with BYPASSRLS)",
    )


def _sync_driver(database: Database) -> str:
    sync = next((one for one in dialects(database.product) if not one.is_async), None)
    if sync is None:
        raise ConfigError(
            f"a sync session on {database.name} needs a sync driver, and none is installed",
            why=f"the app's own driver, {database.dialect.driver}, works in event loops alone",
            cause=str(user_line() or "db_session in a test that is no coroutine"),
            fix="pip install 'psycopg[binary]'   (or make the test async)",
        )
    return "" if database.file else sync.driver
