"""``db_session``: a session on the test's database that neither hides nor keeps anything."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import weakref
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Delete, Insert, TextClause, Update, inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, make_transient, make_transient_to_detached

from pytest_arena._origin import user_line
from pytest_arena._process import run_in_new_loop
from pytest_arena.errors import PendingWorkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine


# What the sync and the async sessions of a test hold.
Memory = tuple[list[tuple["FreshSession", "Kept"]], list[tuple[AsyncSession, "Kept"]]]


class FreshSession(Session):
    """Reads what stands in the database, also where it has the row already.

    An ORM session normally answers from its identity map, so that a test would not see what
    the request has changed. Instances keep their values after a commit.
    """

    _wrote = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["expire_on_commit"] = False
        super().__init__(*args, **kwargs)

    @property
    def has_pending_work(self) -> bool:
        """Whether somebody else would see something else after a commit."""
        return bool(self._wrote or self.new or self.dirty or self.deleted)

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``Session.execute``, with ``populate_existing``."""
        return super().execute(self._fresh(statement), *args, **kwargs)

    def scalar(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``Session.scalar``, with ``populate_existing``."""
        return super().scalar(self._fresh(statement), *args, **kwargs)

    def scalars(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``Session.scalars``, with ``populate_existing``."""
        return super().scalars(self._fresh(statement), *args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Session.get``, from the database."""
        kwargs["populate_existing"] = True  # AsyncSession passes False, its own default
        return super().get(*args, **kwargs)

    def get_one(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Session.get_one``, from the database."""
        kwargs["populate_existing"] = True  # AsyncSession passes False, its own default
        return super().get_one(*args, **kwargs)

    def query(self, *entities: Any, **kwargs: Any) -> Any:
        """As ``Session.query``, with ``populate_existing``."""
        return super().query(*entities, **kwargs).populate_existing()

    def flush(self, objects: Any = None) -> None:
        """As ``Session.flush``."""
        self._wrote = self.has_pending_work
        super().flush(objects)

    def commit(self) -> None:
        """As ``Session.commit``."""
        super().commit()
        self._wrote = False

    def rollback(self) -> None:
        """As ``Session.rollback``."""
        super().rollback()
        self._wrote = False

    def close(self) -> None:
        """As ``Session.close``."""
        super().close()
        self._wrote = False

    def _fresh(self, statement: Any) -> Any:
        if isinstance(statement, Insert | Update | Delete | TextClause):
            self._wrote = True  # a text may be a SELECT: one commit too many costs little
        options = getattr(statement, "execution_options", None)
        # Under no_autoflush a changed instance would lose its change without a word.
        return options(populate_existing=True) if options and self.autoflush else statement


@cache
def _session_classes(*, is_sqlmodel: bool) -> tuple[type[FreshSession], type[AsyncSession]]:
    """Return what sessions are made of: SQLModel's, which have ``exec``, where it is in use."""
    if not is_sqlmodel:
        return FreshSession, AsyncSession
    sync = importlib.import_module("sqlmodel").Session
    asynchronous = importlib.import_module("sqlmodel.ext.asyncio.session").AsyncSession

    def fresh_exec(self: Any, statement: Any, **kwargs: Any) -> Any:
        return sync.exec(self, self._fresh(statement), **kwargs)

    fresh = type("FreshSQLModelSession", (FreshSession, sync), {"exec": fresh_exec})
    return fresh, asynchronous


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


class Sessions:
    """The sessions of one test: committed before each request, closed at the end."""

    def __init__(self) -> None:
        self._sync: list[FreshSession] = []
        self._async: list[AsyncSession] = []
        self._locks: weakref.WeakKeyDictionary[Any, asyncio.Lock] = weakref.WeakKeyDictionary()
        self._turn = threading.RLock()  # sync requests that are made in several threads at once

    @property
    def is_used(self) -> bool:
        """Whether any was opened."""
        return bool(self._sync or self._async)

    def open_sync(self, engine: Engine) -> Session:
        """Open a sync session."""
        session = _session_classes(is_sqlmodel="sqlmodel" in sys.modules)[0](engine)
        self._sync.append(session)
        return session

    def open_async(self, engine: AsyncEngine) -> AsyncSession:
        """Open an async session; nothing needs a loop before it is used."""
        sync, kind = _session_classes(is_sqlmodel="sqlmodel" in sys.modules)
        session = kind(engine, sync_session_class=sync, expire_on_commit=False)
        self._async.append(session)
        return session

    async def acommit(self) -> None:
        """Commit pending work, so that a request sees it; also under gathered requests."""
        self.commit_sync_sessions()
        loop = asyncio.get_running_loop()
        async with self._locks.setdefault(loop, asyncio.Lock()):
            for session in filter(_has_work, self._async):
                with _said_whose("await db_session.flush()"):
                    await session.commit()

    def commit(self) -> None:
        """Commit pending work before a sync request.

        Raises:
            PendingWorkError: the work is in an async session, which cannot be awaited here.
        """
        self.commit_sync_sessions()
        if any(_pending(session) for session in self._async):
            raise PendingWorkError(
                "a sync request inside an async test, while db_session has work not committed",
                why="the request would not see it: a sync client cannot await the commit",
                cause=str(user_line() or "the request"),
                fix="await db_session.commit()   before the request, or use `client`",
            )

    def commit_sync_sessions(self) -> None:
        """Commit the pending work of sync sessions."""
        with self._turn:
            for session in filter(_has_work, self._sync):
                with _said_whose("db_session.flush()"):
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
        """Return how many instances wait to be written."""
        sessions = [*self._sync, *(session.sync_session for session in self._async)]
        return sum(
            len(session.new) + len(session.dirty) + len(session.deleted) for session in sessions
        )

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
def _said_whose(flush: str) -> Iterator[None]:
    """An error of this commit is raised where the test requests, as if the app had failed."""
    try:
        yield
    except Exception as error:
        error.add_note(
            "this is work of the test's own that was pending in db_session, and is committed "
            f"before each request; the app was not asked yet\nnext: {flush}   after each add(), "
            "which fails at the line that is wrong"
        )
        raise


def _has_work(session: AsyncSession | FreshSession) -> bool:
    if isinstance(session, AsyncSession):
        return session.in_transaction() or _pending(session)
    return session.in_transaction() or session.has_pending_work


def _pending(session: AsyncSession) -> bool:
    sync = session.sync_session
    return isinstance(sync, FreshSession) and sync.has_pending_work
