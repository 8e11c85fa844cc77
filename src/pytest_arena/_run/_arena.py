"""The fixture ``arena``."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Any, Generic, cast

from pytest_arena._changes import Changes
from pytest_arena._databases._age import age
from pytest_arena._databases._sessions import Sessions
from pytest_arena._origin import shown_line
from pytest_arena._owner import Phase
from pytest_arena._process import run_in_new_loop, running_loop
from pytest_arena._run._expect import (
    Expected,
    ExpectedChanges,
    StatementLimit,
    acommit,
    asettled,
    changes_between,
    check_table,
    commit,
    statements_of,
)
from pytest_arena._run._leaks import refuse_unfinished
from pytest_arena._run._test import StoryMoment
from pytest_arena.errors import ConfigError, IsolationError, RefusedError, causes

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Collection,
        Iterator,
        Mapping,
        Sequence,
    )

    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session
    from typing_extensions import TypeVar  # it can have a default

    from pytest_arena._app._clients import AsyncClient, TestClient
    from pytest_arena._app._live_server import LiveServer
    from pytest_arena._ledger import Request
    from pytest_arena._product import Database
    from pytest_arena._run._interruptions import Interruptions
    from pytest_arena._run._nested import Fresh
    from pytest_arena._run._processes import Process
    from pytest_arena._run._races import Races
    from pytest_arena._run._run import ArenaRun
    from pytest_arena._run._test import RunningTest

    S = TypeVar("S", bound="AsyncSession | Session", default="AsyncSession")
else:
    from typing import TypeVar

    S = TypeVar("S")


@dataclass(slots=True)
class Refused:
    """The refusal that ``expect_refusal`` caught. ``error`` is set at the end of the block."""

    error: RefusedError | None = None


class Arena(Generic[S]):
    """The test's database and app, from fixtures of any scope.

    The plugin creates it: ask for the fixture ``arena``. Its methods work on the test's data. In
    the set-up of a wide fixture they work on that fixture's data.

    For a type checker ``Arena.session()`` returns an ``AsyncSession``, and
    ``Arena[Session].session()`` a ``Session``. Name SQLModel's session if the app uses it.

    Example::

        @pytest.fixture(scope="module")
        def dancers(arena: Arena[Session]):
            with arena.session() as session:
                session.add(Dancer(name="B-Boy Sand"))
                session.commit()
    """

    __module__ = "pytest_arena"

    def __init__(self, run: Any) -> None:  # Any: an `ArenaRun` is no public type
        self._run: ArenaRun = run

    @property
    def url(self) -> str:
        """The URL of the test's database, with the app's driver. Other processes can use it, too.

        If the app has opened no connection yet, reading the URL creates the database.

        Raises:
            TemplateError: the schema or the seed cannot be built.
        """
        return self._run.engines.given_url(self._run.database()).render_as_string(
            hide_password=False
        )

    @property
    def engine(self) -> Engine | AsyncEngine:
        """A separate engine on the database: async if the app's engine is.

        It never uses the app's connections. Do not dispose of it: later tests use it, too.
        """
        database = self._run.database()
        engines = self._run.engines
        return engines.engine(database, is_async=engines.is_async(database))

    @property
    def isolation(self) -> str:
        """The isolation of tests: ``copy`` on SQLite, else ``undo``, ``clone`` or ``rollback``."""
        return self._run.databases.ensure_content(self._run.database()).name

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests to the app under test that this test made, oldest first."""
        return tuple(self._run.current.required_test().requests_of_level)

    @property
    def statements(self) -> tuple[str, ...]:
        """The statements of the app's engines in the requests of this test, without logins."""
        return tuple(statements_of(self.requests))

    def session(
        self,
        *,
        database: str = "",
        past_policies: bool = False,
    ) -> S:
        """Open a session on the database, like ``db_session``. A wide fixture has to close it.

        In a test, each request of pytest-arena's clients first commits pending work, also inside
        ``with arena.session() as session:``.

        The session is async if the app's engine is async and an event loop is running. For another
        database than the app's first, pass its name. The name of a file has no suffix.

        Example::

            with arena.session(database="analytics") as session:
                assert session.scalar(select(func.count(Visit.id))) == 1

        Args:
            database: the name of a database that is not the app's first.
            past_policies: use pytest-arena's login on a server. The app's row-level policies and
                grants do not limit it, so that a test can write rows of several tenants.

        Raises:
            ConfigError: no engine and no option names such a database. Or policies limit
                pytest-arena's login, too.
            TemplateError: the schema or the seed cannot be built.
        """
        wants_async = running_loop() is not None
        request = Phase.test and Phase.test.request
        session = self._run.open_session(
            request, database, wants_async=wants_async, past_policies=past_policies
        )
        return cast("S", session)

    def client(self, **options: object) -> AsyncClient:
        """Return an async client like ``client``. It takes the options of ``client_options``."""
        return self._run.apps.new_client(self._with_fixture(options))

    def client_as(self, role: str, **options: object) -> AsyncClient:
        """Return an async client that logs in as ``role`` before its first request.

        Raises:
            LoginError: there is no ``arena_login``.
        """
        return self._run.apps.new_client(self._with_fixture(options), role)

    def test_client(self, **options: object) -> TestClient:
        """Return a sync test client like ``test_client``."""
        return self._run.apps.new_test_client(self._with_fixture(options))

    def test_client_as(self, role: str, **options: object) -> TestClient:
        """Return a sync test client that logs in as ``role`` before its first request."""
        return self._run.apps.new_test_client(self._with_fixture(options), role)

    def _with_fixture(self, options: dict[str, object]) -> dict[str, object]:
        test: RunningTest | None = Phase.test
        if test is None or not test.request:
            return options
        # The session fixture `arena` cannot request the function fixture `client_options`.
        return {**test.request.getfixturevalue("client_options"), **options}

    def live_server(self) -> LiveServer:
        """Return the app under a real server, like ``live_server``, also in wide fixtures.

        Example::

            @pytest.fixture(scope="session")
            def base_url(arena):  # which pytest-playwright asks
                return arena.live_server().url

        Raises:
            ConfigError: uvicorn is not installed.
        """
        return self._run.apps.live_server()

    def settled(self, patience: float = 10.0) -> Awaitable[None]:
        """Wait until all work that this test's requests have begun is finished.

        Such work is a task, a thread, a timer or a job of a pool, and the work that these begin.
        Like a request, the call first commits pending work of ``db_session``. Await the call in an
        async test. In a sync test it returns when the work is finished. It costs some microseconds
        if no work runs.

        Example::

            async def test_mail(arena, client):
                await client.post("/orders")  # answers, and continues in a task
                await arena.settled()
                assert (await client.get("/outbox")).json() == ["order 1"]

        Args:
            patience: seconds.

        Raises:
            LateWorkError: work still runs after this time. It continues.
        """
        test = self._run.current.required_test()
        if running_loop() is not None:
            return asettled(test, patience)
        test.commit(is_sync_only=True)
        refuse_unfinished(test.wait_for_work(patience), patience)
        return None  # type: ignore[return-value]  # a sync test does not await it

    def age(self, *, also: Collection[str] = (), **time: float) -> Awaitable[None]:
        """Make all rows of the test's databases older, as if this time had passed.

        Every date and timestamp moves to the past. The clocks stay, so the app, the database and
        the tokens of logins agree. The call first commits pending work of ``db_session``. Await it
        in an async test. It reads and writes each row that has a time, and costs some milliseconds
        for a hundred rows. The end of the test restores the rows.

        Example::

            async def test_a_link_expires(arena, client):
                token = (await client.post("/password-resets")).json()
                await arena.age(hours=25)
                assert (await client.post(f"/password-resets/{token}")).status_code == 410

        Args:
            also: columns with seconds as numbers: ``["events.at"]``.
            time: the arguments of a `datetime.timedelta`: ``days``, ``hours``, ….

        Raises:
            ConfigError: a column does not exist.
            IsolationError: the database does not accept the values, or a trigger sets others. A
                table with times has no primary key.
        """
        aged = _age(self._run, timedelta(**time), also)
        if running_loop() is not None:
            return aged
        return run_in_new_loop(aged)  # type: ignore[arg-type]  # a sync test does not await it

    def process(
        self,
        command: Sequence[str],
        *,
        ready: str | Callable[[], object] = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | str = "",
        patience: float = 10.0,
    ) -> Process:
        """Begin another program on the test's database: a queue's worker, a script, a server.

        Connections of a Python program lead to the tests' databases. Give ``arena.url`` to another
        one. pytest-arena stops the program at the end of the test or the fixture that began it,
        before it restores the database. The report of a failed test shows the end of the output.
        A program that fails is an error of the test, unless the test reads its ``status``.

        Example::

            def test_worker(arena, test_client):
                with arena.process(["arq", "app.jobs.Worker"], ready="Starting worker"):
                    job = test_client.post("/reports").json()
                    ...

        Args:
            command: the program and its arguments.
            ready: a text that the program writes when it is ready, or a function that returns True
                then. The call waits for that.
            env: more environment variables. The program also has the variables of this process.
            cwd: the program's folder, by default the folder of this process.
            patience: seconds.

        Raises:
            ConfigError: the program was not ready in time, or ended before it was ready.
            OSError: the program does not exist.
        """
        process = self._run.begin_process(command, env or {}, Path(cwd))
        process.until_ready(ready, patience=patience)
        return process

    def keep(self) -> Path | str:
        """Copy the database as it is now. Return the file or the URL of the copy.

        The copy outlives the run. It costs one copy of the database.
        """
        where = self._run.keep(self._run.database())
        return where if "://" in where else Path(where)

    def changes(self, request: object = None, /, *, database: str = "") -> Changes:
        """Return the changes of the test, or of one request, row by row.

        Without a request pytest-arena first commits pending work of ``db_session``. The changes are
        those of the test and its function fixtures so far, or in the set-up of a wide fixture those
        of the fixture. ``request`` is one of ``arena.requests``, its index there, or a response of
        a client of pytest-arena. Requests that ran at the same time have one set of changes.

        Changes by other connections and processes count, too, if they are committed. Cost: with
        ``undo`` one query and the changed rows. With ``copy`` and ``clone`` pytest-arena reads the
        tables that have changed.

        Example::

            def test_order(arena, test_client):
                test_client.post("/orders", json={"item": "chair"})
                changes = arena.changes(-1)
                assert changes.tables == ("orders", "stock")
                assert changes["orders"].inserted[0].after["item"] == "chair"

        Raises:
            PendingWorkError: in an async test, ``db_session`` has pending work.
            IsolationError: the isolation, or the size of the database, does not allow the changes
                of one request. Or a wide fixture changed the schema, and pytest-arena has not kept
                all rows that it wrote.
            ConfigError: no database has this name.
        """
        watched = self._run.database(database)
        if request is not None:
            return _changes_of(self._run, request, watched)
        commit()
        return changes_between(self._run, watched, None, None)

    def expect_changes(
        self,
        expected: Mapping[str, Expected] | None = None,
        /,
        *,
        ignore: Collection[str] = (),
        database: str = "",
        **tables: Expected,
    ) -> ExpectedChanges:
        """Assert that a block changes exactly these rows, and nothing else in one database.

        Use ``with``, or ``async with`` in an async test. The start and the end of the block commit
        pending work of ``db_session``. Only ``async with`` can await an async commit.

        Without tables the block must change nothing. ``ignore`` has names or patterns of tables
        that do not count. Use a mapping if a table's name is no Python name, or is ``ignore`` or
        ``database``: ``arena.expect_changes({"audit.log": inserted(1)})``.
        By default the block checks the app's first database.

        The end of the block waits at most ``arena_settle`` seconds for work that requests have
        begun. A plain ``with`` in an async test cannot wait.

        It costs as much as ``arena.changes()``. With ``clone`` it reads the whole database.

        Example::

            from pytest_arena import inserted, updated

            async def test_order(arena, client):
                async with arena.expect_changes(
                    orders=inserted(1, item="chair"), stock=updated(1, amount=4)
                ):
                    await client.post("/orders", json={"item": "chair"})

        Raises:
            AssertionError: at the end of the block, with each row that is missing or unexpected.
                If the block itself raises an error, that error is raised.
            PendingWorkError: ``with`` in an async test, and ``db_session`` has pending work.
            LateWorkError: work of a request still runs.
            TypeError: ``inserted``, ``updated`` or ``deleted`` did not make an expectation.
        """
        wanted = {**(expected or {}), **tables}
        for table, value in wanted.items():
            if not isinstance(value, Expected):
                raise TypeError(
                    f"{table}={value!r} is no expectation: write {table}=inserted(1), or updated, "
                    "or deleted. All three are imported from pytest_arena"
                )
        return ExpectedChanges(self._run, wanted, ignore, database)

    def max_statements(self, count: int) -> StatementLimit:
        """Assert that the requests of a block send at most ``count`` statements in all.

        Statements of the app's engines count, savepoints included. Statements of a login, of
        ``db_session`` and of the test itself do not count.

        Example::

            async def test_one_query_for_all_items(arena, client):
                with arena.max_statements(2):
                    await client.get("/orders")

        Raises:
            AssertionError: the requests send more, or the block made no request. The message lists
                the most frequent statements. If the block itself raises an error, that error is
                raised.
        """
        return StatementLimit(self._run, count)

    def races(self, *, switches: int = 2, limit: int = 100, order: str = "") -> Races:
        """Run requests at once, in each order of their statements.

        Each pass of the loop begins with the present rows, and runs the requests of ``race(…)`` in
        another order: first one after the other, then with one switch between them, then with two.
        Before each statement, commit and rollback a request waits for its turn. In an async test
        pass coroutines, also of functions of the app. In a sync test iterate by ``for``, and pass
        functions, which run in threads.

        ``race(…)`` returns the answers in the order of its arguments. It raises what a request has
        raised, or a group. A result that no serial order has is a ``RaceWarning``.

        It costs some milliseconds for each pass.

        Example::

            async def test_the_last_seat(client, arena):
                async for race in arena.races():
                    answers = await race(client.post("/seats"), client.post("/seats"))
                    assert sorted(each.status_code for each in answers) == [201, 409]

        Args:
            switches: how often a request may be interrupted that could go on.
            limit: the largest number of passes. The summary says if there were more.
            order: run this order first, then the serial ones. The report of a failed test shows it.

        Raises:
            RaceError: the isolation is ``clone`` or ``rollback``, the order does not fit, no
                request sent a statement, or a request has no end.
        """
        from pytest_arena._run._races import Races  # noqa: PLC0415 - few tests need it

        return Races(self._run, switches, limit, order)

    def interruptions(self) -> Interruptions:
        """Interrupt a request at each of its statements and commits.

        The first pass of the loop sends the request of ``attempt(…)`` undisturbed. Each later one
        begins with the same rows, and loses the database connection at the next step: a server
        ends the session, and on SQLite the statement fails. In an async test pass a coroutine. In
        a sync test iterate by ``for``, and pass a function.

        ``attempt(…)`` returns the answer, or the exception that the app has raised. The test
        asserts what must hold in each pass, such as all rows or none.

        It costs some milliseconds for each pass.

        Example::

            async def test_all_or_nothing(client, arena):
                async for attempt in arena.interruptions():
                    await attempt(client.post("/orders"))
                    orders = len(arena.changes()["orders"])
                    assert orders == len(arena.changes()["stock"])

        Raises:
            RaceError: the isolation is ``clone`` or ``rollback``, or the request sent no
                statement.
        """
        from pytest_arena._run._interruptions import Interruptions  # noqa: PLC0415 - few tests need it

        return Interruptions(self._run)

    def fresh(self) -> Fresh:
        """Undo the rows of a block at its end: an example of Hypothesis, a round of a loop.

        Use ``with``, or ``async with`` in an async test. The block begins with the present rows,
        after a commit of ``db_session``. In the block ``arena.requests`` and ``arena.changes()``
        count from its beginning. It costs about as much as a test of its own.

        Example::

            @given(amount=integers(1, 9))
            def test_order(amount, arena, test_client):
                with arena.fresh():
                    test_client.post("/orders", json={"amount": amount})

        Raises:
            ConfigError: ``with`` in an async test.
        """
        from pytest_arena._run._nested import Fresh  # noqa: PLC0415 - few tests need it

        return Fresh(self._run)

    @contextlib.contextmanager
    def expect_refusal(self) -> Iterator[Refused]:
        """Assert that pytest-arena refuses a call in this block, also if the app catches the error.

        A failed assertion in the block, or an error that has another cause, is raised.

        Example::

            with arena.expect_refusal() as refused:
                sqlite3.connect("app.db")
            assert "app.db" in str(refused.error)

        Raises:
            AssertionError: pytest-arena refused nothing.
        """
        refused = Refused()
        before = self._run.ledger.mark()
        try:
            yield refused
        except Exception as error:
            # The app, or a library, may raise another error because of the refusal. A program has
            # failed because of its own.
            all_causes = BaseExceptionGroup("", [*causes(error)])
            is_of_refusal = all_causes.subgroup((RefusedError, CalledProcessError))
            if isinstance(error, AssertionError) or not is_of_refusal:
                raise
        finally:
            since = self._run.ledger.since(before)
            errors = [error for error in since if isinstance(error, RefusedError)]
            self._run.ledger.mark_reported(*since)
        if not errors:
            raise AssertionError("nothing was refused in this block")
        refused.error = errors[0]


def _changes_of(run: ArenaRun, request: Any, database: Database) -> Changes:
    """Return the changes of a request: its index, its record or the response of our client."""
    test = run.current.required_test()
    records = [request]
    if isinstance(request, int):
        records = [test.requests_of_level[request]]
    elif hasattr(request, "status_code"):
        answers = [*getattr(request, "history", ()), request]  # with the redirects before it
        records = [getattr(each, "extensions", {}).get("arena") for each in answers]
    first = test.turn_of(records[0])
    last = test.turn_of(records[-1])
    if first is None or last is None:
        raise ValueError(
            "not a request of this test by a client of pytest-arena: pass its index, such as "
            "arena.changes(-1)"
        )
    before = first.before
    after = last.after or StoryMoment.now(run.databases)
    levels = tuple(run.databases.levels)
    is_known = all(
        each and each.levels == levels and each.knows(database) for each in (before, after)
    )
    if before is None or not is_known:
        raise IsolationError(
            f"{records[0].shown}: the changes of this request in {database.name} are not known",
            why="they are known of the last forty requests of a test, none of a wide fixture, and "
            "only if the isolation need not read the whole database at each request",
            cause=shown_line("arena.changes(request)"),
            fix="with arena.expect_changes(...):   around the request",
        )
    if database not in after.times:  # it did not exist yet
        return Changes.of([], partial(check_table, run, database))
    return changes_between(run, database, before.times.get(database), after.times[database])


async def _age(run: ArenaRun, delta: timedelta, also: Collection[str]) -> None:
    await acommit()
    unknown = {*also}
    databases = dict.fromkeys([run.database(), *run.databases.provisioned])
    for database in databases:
        session = run.engines.open_session(
            Sessions(), database, wants_async=False, past_policies=True
        )
        with cast("Session", session) as opened:
            unknown &= age(opened.connection(), delta, also)
            opened.commit()
    if unknown:
        raise ConfigError(
            f"arena.age: there is no column {', '.join(sorted(unknown))}",
            why="its rows would not be older",
            cause=shown_line("arena.age()"),
            fix='also=["events.at"]   a list, with the name of each table',
        )
