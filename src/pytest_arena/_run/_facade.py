"""What the ``arena`` fixture is: the test's database and app, by hand."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._databases._sessions import Sessions
from pytest_arena._process import running_loop
from pytest_arena._run._observer import ExpectedChanges, expectations
from pytest_arena.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

    from pytest_arena._changes import Changes
    from pytest_arena._expect import Expected
    from pytest_arena._ledger import Request
    from pytest_arena._run._run import ArenaRun

__all__ = ["Arena"]


@dataclass(slots=True)
class Refused:
    """What ``expect_refusal`` caught; ``error`` is there when its block has ended."""

    error: RefusedError | None = None


class Arena:
    """The test's database and app, from fixtures of any scope.

    It is made by the plugin; ask for the fixture ``arena``. Everything that it gives is about
    the level that stands: inside a test the test's, inside a wider fixture that fixture's.

    Example::

        @pytest.fixture(scope="module")
        def dancers(arena):
            with arena.session() as session:
                session.add(Dancer(name="B-Boy Sand"))
                session.commit()
    """

    __module__ = "pytest_arena"

    def __init__(self, run: ArenaRun) -> None:
        self._run = run

    @property
    def url(self) -> str:
        """The URL under which anybody, other processes too, reaches the database now.

        With the app's own driver. The first use makes the database, if nothing has connected yet.

        Raises:
            TemplateError: the schema or the seed cannot be built.
        """
        return self._run.engines.first_url().render_as_string(hide_password=False)

    @property
    def engine(self) -> Engine | AsyncEngine:
        """An engine of our own on the database: async where the app's is.

        It never takes the app's connections. Do not dispose of it; it is kept from test to test.
        """
        return self._run.engines.first_engine()

    @property
    def isolation(self) -> str:
        """How tests are undone: ``copy`` on SQLite, ``undo`` or ``clone`` on PostgreSQL."""
        return self._run.isolation

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests that clients of ours made in this test, oldest first."""
        return tuple(self._run.ledger.requests)

    def session(self, *, database: str = "") -> AsyncSession | Session:
        """Open a session on the database, as ``db_session`` is; close it yourself in a fixture.

        Async where the app's engine is async and an event loop is running, else sync. An app with
        several databases names one that is not its first: by its file, without the ending.

        Example::

            with arena.session(database="analytics") as session:
                assert session.scalar(select(func.count(Visit.id))) == 1

        Raises:
            ConfigError: no engine and no option has given a database this name.
            TemplateError: the schema or the seed cannot be built.
        """
        test = self._run.current.on_top()  # a wide fixture closes its sessions itself
        sessions = test.sessions if test else Sessions()
        wants_async = running_loop() is not None
        return self._run.engines.open_session(sessions, database, wants_async=wants_async)

    def client(self, **options: Any) -> Any:
        """Return an async client, as ``client`` is. ``options`` are those of ``client_options``."""
        return self._run.apps.running().new_client(options=self._run.apps.client_options(options))

    def client_as(self, role: str, **options: Any) -> Any:
        """Return an async client that logs in as ``role`` before its first request.

        Raises:
            LoginError: there is no ``arena_login``.
        """
        return self._run.apps.running().new_client(
            role=role, options=self._run.apps.client_options(options)
        )

    def test_client(self, **options: Any) -> Any:
        """Return a sync test client, as ``test_client`` is."""
        return self._run.apps.running().new_test_client(
            options=self._run.apps.client_options(options)
        )

    def test_client_as(self, role: str, **options: Any) -> Any:
        """Return a sync test client that logs in as ``role`` before its first request."""
        return self._run.apps.running().new_test_client(
            role=role, options=self._run.apps.client_options(options)
        )

    new_client = client

    def keep(self) -> Path | str:
        """Copy the database as it is now, so that it stays; return the file, on a server the URL.

        Costs one copy of the database.
        """
        where = self._run.kept.keep_first()
        return where if "://" in where else Path(where)

    def changes(self, request: Request | int | None = None, /, *, database: str = "") -> Changes:
        """Return what has changed, row by row: since the level that stands began, or in a request.

        Without a request it is what the test and its own fixtures have changed so far; in a wider
        fixture what that has. Pending work of ``db_session`` is committed first. ``request`` is one
        of ``arena.requests``, or its place there. Requests that were under way at the same time
        have their changes together.

        Committed changes, whoever made them: other connections and processes too. Cost: with
        ``undo`` a question to the server and the rows themselves; with ``copy`` and ``clone`` the
        tables that have changed are read.

        Example::

            def test_order(arena, test_client):
                test_client.post("/orders", json={"item": "chair"})
                changes = arena.changes(-1)
                assert changes.tables == ("orders", "stock")
                assert changes["orders"].inserted[0].after["item"] == "chair"

        Raises:
            PendingWorkError: in an async test, ``db_session`` has pending work.
            IsolationError: the isolation, or the size of the database, does not allow to tell what
                one request changed; or a wider fixture changed the schema, and of the rows that it
                wrote not all are kept.
            ConfigError: no database has this name.
        """
        __tracebackhide__ = True
        return self._run.observer.changes(request, database=database)

    def expect_changes(
        self,
        expected: Mapping[str, Expected] | None = None,
        /,
        *,
        ignore: Collection[str] = (),
        database: str = "",
        **tables: Expected,
    ) -> ExpectedChanges:
        """Assert that a block changes exactly these rows, and nothing else in the database.

        By ``with``, and in async tests by ``async with``, which can also await what ``db_session``
        has pending: it is committed at both ends of the block. Without tables the block is to
        change nothing. ``ignore`` names tables, or patterns over them, in which anything may
        happen. A table whose name is no word of Python's, or one of these two, comes in a mapping:
        ``arena.expect_changes({"audit.log": inserted(1)})``.

        Cost: that of ``arena.changes()``, and with ``clone`` a reading of the whole database.

        Example::

            from pytest_arena import inserted, updated

            async def test_order(arena, client):
                async with arena.expect_changes(
                    orders=inserted(1, item="chair"), stock=updated(1, amount=4)
                ):
                    await client.post("/orders", json={"item": "chair"})

        Raises:
            AssertionError: at the end of the block, with each row that is missing or unexpected.
                An error that the block raises itself wins.
            PendingWorkError: ``with`` in an async test, where ``db_session`` has pending work.
            TypeError: what is expected of a table is not made by ``inserted`` and the like, or a
                table is named twice.
        """
        return ExpectedChanges(
            self._run.observer, expectations(expected or {}, tables), ignore, database
        )

    @contextlib.contextmanager
    def expect_refusal(self) -> Iterator[Refused]:
        """Assert that the guard refuses something in this block, also if the app swallows it.

        Example::

            with arena.expect_refusal() as refused:
                sqlite3.connect("app.db")
            assert "app.db" in str(refused.error)

        Raises:
            AssertionError: nothing was refused.
        """
        __tracebackhide__ = True
        refused, before = Refused(), self._run.ledger.mark()
        try:
            yield refused
        except Exception:
            # What the app, or SQLite, makes of a refusal may be an error of another class.
            if not self._refused_since(before):
                raise
        errors = self._refused_since(before)
        if not errors:
            raise AssertionError("nothing was refused in this block")
        refused.error = errors[0]
        self._run.ledger.mark_reported(*self._run.ledger.since(before))

    def _refused_since(self, mark: int) -> list[RefusedError]:
        errors = self._run.ledger.since(mark)
        return [error for error in errors if isinstance(error, RefusedError)]
