"""The conductor: one run for each pytest process, from the first option to the last refusal."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from pytest_arena import _gate, _leaks
from pytest_arena._app import AppRun, Request, SessionLifespan, build_app, check_app
from pytest_arena._arena._databases import Databases, Level
from pytest_arena._arena._engines import Engines
from pytest_arena._arena._environment import Environment
from pytest_arena._arena._kept import new_kept_file
from pytest_arena._arena._levels import Levels
from pytest_arena._arena._running import RunningTest, Unheard
from pytest_arena._ledger import Ledger, TestFacts
from pytest_arena._load import load_attribute, load_function
from pytest_arena._servers._sqlite import Home
from pytest_arena._session import Sessions
from pytest_arena._template import Store, check_schema, check_seed, suggested_schema
from pytest_arena._values import Stage
from pytest_arena.errors import ConfigError, IsolationError, LifespanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

    from pytest_arena._app import ASGIApp, Hooks
    from pytest_arena._config import Config
    from pytest_arena._values import Plan

__all__ = ["ArenaRun"]


class ArenaRun:
    """Open, run, settle: what each hook of the plugin calls, and in this order."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self.config, self.ledger = config, ledger
        self._home = Home()
        self._store = Store(config.cache / "templates", config.root, _rebuilt_since(config))
        self.databases = Databases(config, self._home, self._store, ledger)
        self.environment = Environment(config.env, self.databases)
        self.gate = _gate.install(self.databases)
        self.levels = Levels(self.databases, self.gate, ledger)
        self.engines = Engines(self.databases)
        self.test: RunningTest | None = None
        self.app: object = None
        self.tearing_down = False
        self._serials = count(1)
        self._process = os.getpid()
        self._session_state: Mapping[str, Any] | None = None
        self._wide_apps: dict[object, list[AppRun]] = {}  # by the fixture that made the client

    def start(self) -> None:
        """Redirect the environment. The gate stands already."""
        self.environment.redirect()

    def check(self) -> None:
        """After collection: import and check what the options name, find the app's engines.

        Raises:
            ConfigError: an option names something that is not there or not right.
        """
        place = self.config.place
        if self.config.app:
            self.app = load_attribute(self.config.app, option="arena_app", source=place("app"))
            check_app(self.app, self.config.app)
        for schema in self.config.schema.values():
            check_schema(schema, self.config.root, source=place("schema"))
        for seed in self.config.seed.values():
            check_seed(seed, source=place("seed"))
        self._login()
        engines = _gate.oldest_first(_gate.find_engines())
        for engine in engines:
            _gate.adopt(engine.pool)  # those that were made before the gate
        asked = [_gate.asked_by_engine(engine) for engine in engines]
        self.databases.choose_primary([one for one in asked if one is not None])
        if (named := self.environment.written_since()) is not None:
            self.databases.prefer(named)

    # A test.

    def open(self, plan: Plan) -> None:
        """Name the test. Nothing is connected yet."""
        self.engines.close(self.databases.drop_orphans())
        self.ledger.begin(plan.name)
        self.levels.seconds = 0.0
        self.gate.used.clear()
        self.test = RunningTest(plan, next(self._serials))

    def enter_test(self) -> None:
        """Open the test's own level, at its first function-scoped fixture or its call."""
        test = self.test
        if test is not None and not test.settled and self.levels.find(test) is None:
            self.levels.enter(Level(test, test.plan.name, test.serial, test.plan.stage))
            # Not earlier: what wider fixtures override holds as long as they do.
            test.overrides = [_leaks.Overrides(self.app)]

    async def aclose_test(self) -> None:
        """In the test's own loop: close what needs it."""
        if self.test is not None:
            await self.test.sessions.aclose()
            for app_run in self.test.app_runs:
                await app_run.aclose()

    async def aclose_failed_test(self) -> None:
        """As ``aclose_test``; what fails is told at settling, beside the test's own failure."""
        try:
            await self.aclose_test()
        except Exception as error:  # noqa: BLE001 - kept, and raised by the tear-down
            self._running().errors.append(error)

    def settle_level(self) -> None:
        """Function-scoped fixtures are down: close, look for leaks, restore. Idempotent."""
        test = self.test
        if test is None or test.settled:
            return
        test.settled = True
        for step in (self._close_clients, self._find_leaks, self._leave_test):
            try:
                step(test)
            except Exception as error:  # noqa: BLE001 - one failure never stops the next step
                test.errors.append(error)

    def _close_clients(self, test: RunningTest) -> None:
        with ExitStack() as stack:  # last in, first out, and one failure stops no other
            stack.callback(self._restore_overrides, test)
            stack.callback(test.sessions.close)
            for app_run in test.app_runs:
                stack.callback(app_run.close)

    def _restore_overrides(self, test: RunningTest) -> None:
        names = [name for overrides in test.overrides for name in overrides.restore()]
        if "app.dependency_overrides" in names:
            self.ledger.note(f"{test.plan.name} left app.dependency_overrides; restored")

    def _find_leaks(self, test: RunningTest) -> None:
        before = self.levels.before(self.levels.find(test))
        leaks = _leaks.connection_leaks(self.gate, test.serial, before)
        if leaks:
            error = _leaks.leak_error(leaks)
            _leaks.take_back([leak for leak in leaks if leak.level == test.serial])
            _leaks.end_transactions([leak for leak in leaks if leak.level != test.serial])
            raise error

    def _leave_test(self, test: RunningTest) -> None:
        level = self.levels.find(test)
        if level is not None:
            self._finish_above(level)
            test.changed = self.levels.leave(level)

    def settle(self) -> list[Exception]:
        """The test is over: restore, freeze its facts. Returns what went wrong meanwhile."""
        test = self.test
        if test is None:
            return []
        self.settle_level()
        self.test = None
        self.ledger.end(self._facts(test))
        return test.errors

    def _facts(self, test: RunningTest) -> TestFacts:
        provisioned = self.databases.provisioned()
        used = [one.name for one in provisioned if one.key in self.gate.used]
        return TestFacts(
            name=test.plan.name,
            databases=tuple(dict.fromkeys([*used, *test.changed])),
            changed=tuple(test.changed),
            requests=len(test.requests),
            isolation_seconds=self.levels.seconds,
        )

    # Wide fixtures.

    @contextmanager
    def wide_fixture(self, owner: Any, name: str) -> Iterator[None]:
        """Around the set-up of a fixture that outlives the test: its own level.

        A level in which nothing was written is dropped at once; one whose set-up failed is left
        at once.
        """
        level = Level(owner, name)
        with self._below_the_test():
            self.levels.enter(level)
            try:
                yield
            except BaseException:
                self.leave_wide(owner)
                raise
            self.levels.drop_if_clean(level)

    @contextmanager
    def _below_the_test(self) -> Iterator[None]:
        """Slip a wide fixture's level below the test's, where the test has not written yet.

        A fixture that is first asked for by ``getfixturevalue`` comes late. On top of a level in
        which the test has written it can only live as long as the test.
        """
        test, levels = self.test, self.databases.levels
        if test is None or not self._in_test() or test.plan.stage is not Stage.SEEDED:
            yield
            return
        untouched = not any(overrides.changed() for overrides in test.overrides)
        slipped = self.levels.drop_if_clean(levels[-1])
        try:
            yield
        finally:
            if slipped:
                kept = test.overrides
                self.enter_test()
                test.overrides = test.overrides if untouched else kept

    def ending_wide(self, owner: Any, name: str) -> None:
        """Before a wide fixture's own tear-down: what lies above its level goes first."""
        if self.tearing_down:
            self.settle_level()
        level = self.levels.find(owner)
        if level is None:
            self.levels.enter(Level(owner, name))  # its tear-down may write
        else:
            self._finish_above(level)

    def leave_wide(self, owner: Any) -> None:
        """After a wide fixture's tear-down: its data goes. Harmless if it has no level."""
        level = self.levels.find(owner)
        if level is None:
            return
        self._finish_above(level)
        try:
            self._close_apps_of(owner)
        finally:
            self.levels.leave(level)

    def _close_apps_of(self, owner: Any) -> None:
        with ExitStack() as stack:
            for app_run in self._wide_apps.pop(owner, ()):
                stack.callback(app_run.close)

    def _finish_above(self, level: Level) -> None:
        """Finish the fixtures whose levels lie above; they are set up again at their next use."""
        for upper in self.levels.above(level):
            if upper.owner is self.test:
                self._end_in_the_middle()
            elif upper in self.databases.levels:
                upper.owner.finish()  # type: ignore[attr-defined]  # the plugin's WideFixture
                self.leave_wide(upper.owner)

    def _end_in_the_middle(self) -> None:
        """A fixture below a test ends before it: Ctrl-C, or somebody has finished it by hand."""
        test = self._running()
        self.settle_level()
        test.errors.append(
            IsolationError(
                f"{test.plan.name}: a wider fixture that stood below it ended while it ran",
                why="what the test has written stands on the fixture's data, and went with it",
                cause="Ctrl-C, or code that finishes fixtures by hand",
                fix="ask for the fixture in the test's arguments",
            )
        )

    # What fixtures ask.

    @property
    def built_seconds(self) -> float:
        """What building templates has cost in this run."""
        return self._store.built_seconds

    @property
    def built_because(self) -> list[str]:
        """What has changed since the last build, where there was one."""
        return [reason for reason in self._store.reasons if reason]

    def suggested_schema(self) -> str:
        """The likeliest ``arena_schema``, where there is none; "" where there is one."""
        return "" if self.config.schema else suggested_schema(self.config.root)

    def unused_names(self) -> list[str]:
        """The databases that ``arena_schema`` or ``arena_seed`` name, and no engine has meant."""
        known = {database.name for database in self.databases.known()}
        named = {**self.config.schema, **self.config.seed}
        return [name for name in named if name and name not in known]

    @property
    def isolation(self) -> str:
        """How the running test is undone."""
        return "copy"

    def requests(self) -> tuple[Request, ...]:
        """The requests of the running test."""
        return tuple(self.test.requests) if self.test else ()

    def url(self) -> URL:
        """The URL of the app's first database, which is there on return."""
        database = self.databases.first()
        self.databases.ensure(database)
        return self.engines.url(database)

    def engine(self) -> Engine | AsyncEngine:
        """The engine of our own, of the kind of the app's."""
        database = self.databases.first()
        kinds = (self.engines.sync_engine, self.engines.async_engine)
        return kinds[database.dialect.is_async](database)

    def open_session(self) -> AsyncSession | Session:
        """A session of the test, or one that a wide fixture has to close itself."""
        sessions = self._running().sessions if self._in_test() else Sessions()
        return self._open_session(sessions, wants_async=_loop_is_running())

    def db_session(self) -> AsyncSession | Session:
        """A session of the kind of the test."""
        test = self._running()
        return self._open_session(test.sessions, wants_async=test.plan.is_async)

    def _open_session(self, sessions: Sessions, *, wants_async: bool) -> AsyncSession | Session:
        database = self.databases.first()
        if wants_async and database.dialect.is_async:
            return sessions.open_async(self.engines.async_engine(database))
        return sessions.open_sync(self.engines.sync_engine(database))

    def _in_test(self) -> bool:
        """Whether the test's level is on top: a wide fixture may be set up inside of a test."""
        levels = self.databases.levels
        return self.test is not None and bool(levels) and levels[-1].owner is self.test

    def _running(self) -> RunningTest:
        assert self.test is not None, "because pytest sets fixtures up in a test"  # noqa: S101 - our own bug
        return self.test

    def keep(self) -> Path:
        """Copy the first database to a file that stays."""
        database = self.databases.first()
        file = new_kept_file(self.config.cache, self.ledger.test or "outside", database.live.name)
        self.databases.ensure(database).save(file)
        return file

    def keep_if_used(self) -> list[Path]:
        """Copy each database that somebody has connected to; never fails a report."""
        kept = []
        for database in self.databases.provisioned():
            file = new_kept_file(self.config.cache, self.ledger.test, database.live.name)
            try:
                self.databases.ensure(database).save(file)
            except Exception as error:  # noqa: BLE001 - a full disk, a lock: the test's report goes on
                self.ledger.note(f"{self.ledger.test}: not kept: {error}")
            else:
                kept.append(file)
        return kept

    def app_run(self) -> AppRun:
        """Return the app of the running test, or of the wide fixture that is being set up."""
        if not self._in_test():
            return self._new_app_run(self.new_app(), hooks=Unheard())
        test = self._running()
        if not test.app_runs:
            self.use_app(self.new_app())
        return test.app_runs[-1]

    def new_app(self) -> ASGIApp:
        """Return the app that ``arena_app`` names; a factory is called.

        Raises:
            ConfigError: there is no ``arena_app``.
        """
        if not self.config.app:
            raise ConfigError(
                "there is no arena_app",
                why="clients need to know the app that they talk to",
                cause="the pytest configuration names none",
                fix="arena_app = app.main:app   in [tool.pytest.ini_options] or pytest.ini",
            )
        return build_app(self.app)

    def use_app(self, app: ASGIApp) -> None:
        """Clients of this test talk to this app."""
        test = self._running()
        if app is not self.app:
            test.overrides.append(_leaks.Overrides(app))
        test.app_runs.append(self._new_app_run(app, hooks=test))

    def _new_app_run(self, app: ASGIApp, *, hooks: Hooks) -> AppRun:
        run = AppRun(
            app,
            hooks=hooks,
            lifespan=self.config.lifespan == "on",
            login=self._login(),
            login_path=self.config.login,
            state=self._session_state,
        )
        if not isinstance(hooks, RunningTest):
            owner = self.databases.levels[-1].owner if self.databases.levels else None
            self._wide_apps.setdefault(owner, []).append(run)
        return run

    def _login(self) -> Any:
        path, place = self.config.login, self.config.place("login")
        if not path:
            return None
        return load_function(path, "client", "role", option="arena_login", source=place)

    @contextmanager
    def session_lifespan(self, app: Any) -> Iterator[None]:
        """Run the app's lifespan once, on a loop thread of ours."""
        lifespan = SessionLifespan()
        self._session_state = lifespan.start(app)
        try:
            yield
        finally:
            self._session_state = None
            lifespan.stop()

    # The end.

    def finish(self) -> None:
        """After the session: leave all levels; from here on the gate refuses everything."""
        if self.databases.finished or os.getpid() != self._process:  # a fork: all is its parent's
            return
        self.settle()
        for owner in list(self._wide_apps):
            with suppress(LifespanError):  # nobody is left to be told
                self._close_apps_of(owner)
        while self.databases.levels:
            with suppress(IsolationError):  # as above
                self.levels.leave(self.databases.levels[-1])
        for database in self.databases.provisioned():
            self.databases.ensure(database).close()
        self.databases.finished = True
        if _gate.close(self.gate):
            self.environment.restore()
        self._home.close()


_SINCE = "ARENA_REBUILT_SINCE"


def _rebuilt_since(config: Config) -> float:
    """Under ``--arena-rebuild``: templates older than the run's start are not good enough.

    The first process says when it started; its workers inherit it, and build once together.
    """
    if not config.rebuild:
        return 0.0
    return float(os.environ.setdefault(_SINCE, str(time.time())))


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
