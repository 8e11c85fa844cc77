"""The run of one pytest process."""

from __future__ import annotations

import functools
import os
import shlex
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_arena._app._app_run import session_lifespan
from pytest_arena._app._apps import watch_apps_and_clients
from pytest_arena._app._entry import watch_requests
from pytest_arena._databases._builders import schema_builder, seed_builder, session_classes
from pytest_arena._databases._resolver import Databases
from pytest_arena._databases._sessions import Engines, Sessions
from pytest_arena._gate._listeners import gate
from pytest_arena._gate._network import watch_network
from pytest_arena._gate._registry import Registry
from pytest_arena._owner import Owner, Phase, begin_phase, owned_by
from pytest_arena._product._connection_loop import lasting_loops
from pytest_arena._redis import Redis
from pytest_arena._run import _story
from pytest_arena._run._expect import unentered
from pytest_arena._run._leaks import Tasks
from pytest_arena._run._levels import Levels
from pytest_arena._run._test import Current, RunningTest, Watcher
from pytest_arena._run._test_apps import Apps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pluggy import HookRelay
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from pytest_arena._config._read import Config
    from pytest_arena._ledger import Ledger
    from pytest_arena._product import Database
    from pytest_arena._run._processes import Process
    from pytest_arena._values import Plan


class ArenaRun:
    """Opens and settles each test. The methods are in the order in which the plugin calls them."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        hooks: HookRelay,
        scenarios: Any = None,
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.scenarios = scenarios  # their plugin, None without specifications
        self.watcher: Watcher | None = scenarios.watch(self) if scenarios else None
        self.connections = Registry()
        self.databases = Databases(config, ledger, self.connections)
        self._known = self.databases.known
        self.current = Current()
        gate.install(self.databases, self.connections)
        watch_network(config, ledger, self.databases.products.ports)
        self.tasks = Tasks()
        self.engines = Engines(self.databases)
        self.apps = Apps(config, self.current)
        self._undo = ExitStack()
        watch_requests(self._undo)
        watch_apps_and_clients(self._undo)
        self.levels = Levels(self.databases, hooks, self.current, self.apps, self.tasks)
        self.redis = Redis(ledger, config.allow, self.databases.refuse_late, self.levels.beside)
        self.redis.watch_clients()
        self.databases.redis_port = self.redis.port_of_programs
        self.faults: list[Callable[..., Any]] = []
        self.is_repeating = False  # whether the test runs again, by `Repeats`

    def check(self) -> None:
        """Import and check the objects that options name. Find the app's engines.

        Called after the collection.
        """
        self.apps.load()
        for schema in filter(None, self.config.schema.values()):
            schema_builder(schema, self.config.root, source=self.config.place("schema"))
        for seed in filter(None, self.config.seed.values()):
            seed_builder(seed, source=self.config.place("seed"))
        session_classes()
        self._known.register_engines()
        self.databases.environment.redirect()

    def begin_test(self, plan: Plan, request: Any = None) -> None:
        """Begin a test. No connection is opened yet. ``request`` is that of its fixtures."""
        self.ledger.begin(plan.name)
        self.connections.has_used = False
        lasting_loops.add(self.tasks.loops())
        test = RunningTest(
            plan,
            self.config.settle,
            self.tasks,
            self.databases,
            self.ledger,
            faults=self.faults,
            request=request,
            aclose_redis=self.redis.aclose,
        )
        self.current.test = test
        begin_phase(test)

    def interrupt(self) -> None:
        """Cancel the running statements of a test that was interrupted."""
        for checkout in self.connections.checked_out():
            owner = checkout.owner
            if owner is not None and owner.is_test and checkout.handle is not None:
                checkout.handle.interrupt()

    def settle(self) -> list[BaseException]:
        """Restore the state before the test, and freeze its facts. Return the errors to raise."""
        test = self.current.required_test()
        try:
            self.levels.settle_test()
        finally:
            test.note_failed_tasks()
            if not test.failed:
                _story.warn(self.ledger, test)
            self.current.test = None
            is_used = test.is_changed or self.connections.has_used
            self.ledger.end(is_used=is_used, is_changed=test.is_changed)
            test.forget()
            self.current.in_teardown = False
        errors = [*test.errors, *unentered(test.blocks)]
        if self.watcher is not None:
            return self.watcher.settled(errors)
        return errors

    # Called by the plugin and by fixtures

    def database(self, name: str = "") -> Database:
        """Return the database of this name, or the app's first.

        Starts the app if no engine is known yet.
        """
        if not self._known.find_first():
            self._start_app()
            self.databases.add_first()
        return self._known.named(name)

    def open_session(
        self, request: Any, name: str = "", *, wants_async: bool, past_policies: bool = False
    ) -> AsyncSession | Session:
        """Open a session of the running test, or of a wide fixture, which closes it.

        ``request`` is that of the fixture that pytest is setting up, or of the test.
        """
        test: RunningTest | None = Phase.test
        # The app may create the engines.
        if test is not None and (test.will_start_app or not self._known.find_first()):
            self.apps.try_fixture(test, request)
        return self.engines.open_session(
            Sessions() if test is None else test.sessions,
            self.database(name),
            wants_async=wants_async,
            past_policies=past_policies,
        )

    def _start_app(self) -> None:
        """Start the app so that it creates its engines, shut it down, and undo its writes."""
        test = self.current.test
        if test is not None and test.app_runs:
            app = test.app_runs[-1].app
        elif self.config.app:
            app = self.apps.build()
        else:
            return
        if self._known.find_first() or self.config.lifespan == "off":
            return
        owner = Owner("the start of the app", "")
        self.levels.enter(owner)
        try:
            with session_lifespan(app, self.apps.loop):
                self._known.find_first()
        finally:
            self.levels.leave_fixture(owner)

    def note_outcome(self, when: str, outcome: str, *, has_error: bool) -> list[str]:
        """Note the outcome of a phase. Return a line for each database that was kept."""
        test = self.current.test
        if test is None:
            return []
        is_failed = outcome == "failed"
        # pytest reports the error of an xfailed test as skipped.
        test.failed |= is_failed or has_error
        keep = test.plan.keep
        is_wanted = keep == "always" and when == "call"
        is_wanted |= keep != "never" and is_failed
        if not is_wanted:
            return []
        texts = []
        used = self.databases.provisioned
        for database in used:
            name = f"({database.name})  " if len(used) > 1 else ""
            try:
                command = shlex.join(database.product.shell(self.keep(database)))
                texts.append(f"the test's database was kept: {name}{command}")
            except Exception as error:  # noqa: BLE001 - a full disk, a lock: the report continues
                self.ledger.note(f"{self.ledger.test}: not kept: {error}")
        if outcome == "passed":
            self.ledger.kept = texts[-1] if texts else ""
        return texts

    def keep(self, database: Database) -> str:
        """Copy a database as it is now. Return the file or the URL of the copy."""
        self.databases.ensure_content(database)
        return database.product.keep(database, self.ledger.test or "outside")

    def begin_process(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> Process:
        """Begin another program on the database. It ends with the test or the wide fixture."""
        from pytest_arena._run._processes import Process  # noqa: PLC0415 - few tests need it

        for database in {self.database(), *self._known.by_key.values()}:
            if database.has_engine or database is self._known.primary:
                self.databases.ensure_content(database)
        process = Process(command, env={**os.environ, **env}, cwd=cwd)
        self.levels.processes.setdefault(Phase.owner, []).append(process)
        return process

    def outputs(self) -> list[tuple[str, str]]:
        """Return report sections with the output of the running programs of `arena.process`."""
        return [
            (f"arena: the output of {process.command}", process.shown)
            for processes in self.levels.processes.values()
            for process in processes
            if process.shown
        ]

    def finish(self) -> None:
        """Leave all levels after the session. The gate refuses every later connection."""
        if self.databases.finished:
            return
        if self.current.test is not None:
            self.settle()
        self._undo.close()
        self.apps.close()
        for isolation in self.databases.provisioned.values():
            isolation.close()
        self.databases.finished = True
        self.redis.close()
        if self.ledger.refusals_file:
            self.ledger.refusals_file.close()
        for product in self.databases.products.opened.values():
            product.close()


def conducted(
    function: Callable[..., Any], test: RunningTest, *, is_example: bool
) -> Callable[..., Any]:
    """Return a coroutine function that replaces the test's and calls it.

    It closes clients, lifespan and sessions in the coroutine's loop. With ``is_example``,
    Hypothesis calls it for each example. Then the end of the test closes them.
    """

    @functools.wraps(function)
    async def run(*args: object, **kwargs: object) -> None:
        test.begin_call()
        try:
            await test.astart()
            # The runner's task may have begun before the test, with another context.
            with owned_by(test):
                await function(*args, **kwargs)
            if not is_example:
                await test.asettle()
        except BaseException:
            if not is_example:
                # What explains the failure.
                test.uncommitted = _story.uncommitted(test)
                test.unfinished = test.unfinished_work()
                try:
                    await test.aclose()
                except Exception as error:  # noqa: BLE001 - the tear-down raises it
                    test.errors.append(error)
            raise
        if not is_example:
            await test.aclose()

    return run
