"""Which app does a client talk to, and who closes it?"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from pytest_arena._app._app_run import AppRun
from pytest_arena._app._app_state import AppState
from pytest_arena._app._client import Hooks
from pytest_arena._app._kind import (
    ASGIApp,
    as_asgi,
    build_app,
    check_app,
    enclosed,
    is_wsgi,
    may_be_app,
    unwrapped,
)
from pytest_arena._app._lifespan import session_lifespan
from pytest_arena._config._load import load_attribute, load_function
from pytest_arena.errors import ConfigError, LifespanError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_arena._app._client import AsyncClient
    from pytest_arena._app._live_server import LiveServer
    from pytest_arena._app._sync_client import TestClient
    from pytest_arena._config._read import Config
    from pytest_arena._run._test import Current, RunningTest, Watcher


class Apps:
    """The app that ``arena_app`` names, running for the test or for a wide fixture.

    A test's are closed when it is settled, a wide fixture's when its level is left.
    """

    def __init__(
        self, config: Config, current: Current, watcher: Watcher | None
    ) -> None:
        self._config = config
        self._current = current
        self._watcher = watcher
        self.named: object = None  # what `arena_app` names
        self.factory: object = (
            None  # the same, where it makes apps: to look costs 50 µs
        )
        self._is_asgi = False  # whether `arena_app` names an ASGI app
        self._session_state: Mapping[str, Any] | None = None
        self._wide: dict[
            object, list[AppRun]
        ] = {}  # by the fixture that made the client
        self.live: LiveServer | None = None
        self.port = 0  # of the live server; 0 for a free one
        self.given: object = (
            None  # what the fixture `arena_app` was last, whoever defines it
        )

    def give(self, app: object) -> None:
        """A test, or a fixture, gets this as `arena_app`, and may ask it by any client."""
        self.given = app
        if self._watcher is not None:
            self._watcher.uses_app(app)

    def in_use(self) -> Iterator[object]:
        """Yield what the fixture gave, and the apps that clients of ours talk to."""
        test = self._current.test
        yield self.given
        for app_run in chain(test.app_runs if test else (), *self._wide.values()):
            yield app_run.app

    def _known(self) -> list[object]:
        outer = (None if self.factory is not None else self.named, *self.in_use())
        return [one for one in outer if one is not None]

    def knows(self, app: object) -> bool:
        """Whether this is the app under test, or one that calls it."""
        inner = [part for one in self._known() for part in unwrapped(one)]
        return any(
            part is one for part in (*unwrapped(app), *enclosed(app)) for one in inner
        )

    def asked(self, app: object) -> RunningTest | None:
        """Return the test that asks the app under test here, by a client that is not ours.

        Where nobody has named the app, or what a factory makes, it is whichever app is asked.
        """
        is_named = self.factory is None and self._known()
        return None if is_named and not self.knows(app) else self._current.on_top()

    def load(self) -> None:
        """Import and check the app.

        Raises:
            ConfigError: an option names something that is not there or not right.
        """
        path = self._config.app
        place = self._config.places["app"]
        if path:
            self.named = load_attribute(
                path, option="arena_app", source=place, likely=may_be_app
            )
            self.factory = self.named if check_app(self.named, path) else None
            self._is_asgi = self.factory is None and not is_wsgi(self.named)

    def running(self) -> AppRun:
        """Return the app of the running test, or of the wide fixture that is being set up."""
        test = self._current.on_top()
        if test is None:
            app_watcher = self._watcher.app_watcher if self._watcher else None
            app_run = self._begin(self.build(), hooks=Hooks(app_watcher))
            self._wide.setdefault(self._current.owner(), []).append(app_run)
            return app_run
        if not test.app_runs:
            self.use(self.build(), test)
        return test.app_runs[-1]

    def build(self) -> ASGIApp:
        """Return the app that ``arena_app`` names; a factory is called.

        Raises:
            ConfigError: there is no ``arena_app``.
        """
        if not self._config.app:
            raise ConfigError(
                "there is no arena_app",
                why="clients need to know the app that they talk to",
                cause="the pytest configuration names none",
                fix="arena_app = app.main:app   in [tool.pytest.ini_options] or pytest.ini",
            )
        if self.factory is not None:
            return build_app(self.factory)
        return self.named  # type: ignore[return-value]  # which `check_app` has looked at

    def at_hand(self) -> ASGIApp | None:
        """Return the app of the running test, or else the one that ``arena_app`` names, if any."""
        test = self._current.test
        if test is not None and test.app_runs:
            return test.app_runs[-1].app
        return self.build() if self._config.app else None

    def use(self, app: ASGIApp, test: RunningTest) -> None:
        """Let the clients of a test talk to this app."""
        if app is not self.named:
            test.remember_app(*test.app_states, AppState(app))
        test.app_runs.append(self._begin(app, hooks=test))

    def start(self) -> None:
        """Start the app of the running test: a coroutine's in its loop, just before it."""
        test = self._current.running()
        app_run = self.running()
        if test.plan.is_async:
            test.is_to_be_started = True
            test.sessions.starter = test
        else:
            app_run.join({"backend": "asyncio"})

    def new_client(
        self, options: Mapping[str, Any], role: str | None = None
    ) -> AsyncClient:
        """Return a client. In a test it has the options of the fixture, below these."""
        return self.running().new_client(
            role=role, options=self._with_fixtures(options)
        )

    def new_test_client(
        self, options: Mapping[str, Any], role: str | None = None
    ) -> TestClient:
        """As ``new_client``, for plain functions."""
        return self.running().new_test_client(
            role=role, options=self._with_fixtures(options)
        )

    def _with_fixtures(self, options: Mapping[str, Any]) -> dict[str, Any]:
        test = self._current.on_top()
        return {**(test.client_options() if test else {}), **options}

    def open(self) -> AppRun | None:
        """Return the app that answers what comes by a socket now; None between two tests."""
        test = self._current.test
        if test is None or test.settled:
            return None
        of_fixture = self._wide.get(self._current.owner())
        return of_fixture[-1] if of_fixture else self.running()

    def commit(self) -> None:
        """Commit what sync sessions of the test have pending."""
        test = self._current.on_top()
        if test is not None and test.sessions.is_used:
            test.sessions.commit_sync_sessions()

    def live_server(self) -> LiveServer:
        """Return the server, which is begun when it is first asked for."""
        if self.live is None or self.live.process != os.getpid():
            from pytest_arena._app._live_server import LiveServer  # noqa: PLC0415 - for whom has one

            self.live = LiveServer(self, port=self.port)
        return self.live

    def drain(self, *, is_short: bool) -> list[str]:
        """End the requests that came by a socket, and go on; return a line for each."""
        if self.live is None:
            return []
        return self.live.drain(0 if is_short else self._config.settle)

    def _begin(self, app: ASGIApp, *, hooks: Hooks) -> AppRun:
        if self._watcher is not None:
            self._watcher.uses_app(app)
        is_named = (
            app is self.named and self._is_asgi
        )  # then no test pays for `as_asgi`
        return AppRun(
            app if is_named else as_asgi(app),
            hooks=hooks,
            lifespan=self._config.lifespan == "on",
            login=self.login(),
            login_path=self._config.login,
            state=self._session_state,
        )

    def login(self) -> Callable[..., Any] | None:
        """Return the function that ``arena_login`` names, None without one.

        Raises:
            ConfigError: it names something that is not there or not right.
        """
        path = self._config.login
        place = self._config.places["login"]
        if not path:
            return None
        return load_function(path, "client", "role", option="arena_login", source=place)

    @contextmanager
    def session_lifespan(self, app: Any) -> Iterator[None]:
        """Run the app's lifespan once, on a loop thread of ours."""
        with session_lifespan(app, serves_tests=True) as state:
            self._session_state = state
            try:
                yield
            finally:
                self._session_state = None

    def close_of(self, owner: object) -> None:
        """Close the clients that a wide fixture has made, and their apps."""
        with ExitStack() as stack:
            for app_run in self._wide.pop(owner, ()):
                stack.callback(app_run.close)

    def close(self) -> None:
        """Close those of all wide fixtures, and the server."""
        if self.live is not None:
            self.live.close()
        for owner in list(self._wide):
            with suppress(LifespanError):  # nobody is left to be told
                self.close_of(owner)
