"""The app under test, and its clients."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pytest_arena._app._app_run import AppLoop, AppRun, session_lifespan
from pytest_arena._app._apps import (
    AppState,
    ASGIApp,
    Options,
    as_asgi,
    build_app,
    check_app,
)
from pytest_arena._app._clients import Login, open_async_client, open_test_client
from pytest_arena._config._load import check_function, load_attribute
from pytest_arena._owner import Phase, WideFixture
from pytest_arena._process import alive
from pytest_arena.errors import ConfigError, LoginError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._app._clients import AsyncClient, TestClient
    from pytest_arena._app._live_server import LiveServer
    from pytest_arena._config._read import Config
    from pytest_arena._run._test import Current, RunningTest


class Apps:
    """The app that ``arena_app`` names, and its runs in the test and in wide fixtures.

    The end of a test closes its runs. The end of a wide fixture's level closes the fixture's runs.
    """

    def __init__(self, config: Config, current: Current) -> None:
        self._config = config
        self._current = current
        self.app_of_option: object = None  # the object that `arena_app` names
        # Whether `arena_app` names a function that returns an app. The check costs 50 µs.
        self.is_factory: bool = False
        self._clients: WeakSet[Any] = WeakSet()  # pytest-arena's
        self._login: Any = None
        # The state that a lifespan for the whole session gives to requests.
        self.session_state: Mapping[str, object] | None = None
        # The loop of sync clients, of the session's lifespan and of the live server.
        self.loop = AppLoop()
        # The runs of wide fixtures, by owner.
        self.wide_runs: dict[object, AppRun] = {}
        self.live: LiveServer | None = None
        self._is_in_fixture = False

    def load(self) -> None:
        """Import and check the app, and the function that ``arena_login`` names."""
        path = self._config.app
        if path:
            self.app_of_option = load_attribute(
                path,
                option="arena_app",
                source=self._config.place("app"),
            )
            self.is_factory = check_app(self.app_of_option, path)
        login = self._config.login
        if login:
            place = self._config.place("login")
            self._login = load_attribute(login, option="arena_login", source=place)
            setting = f"arena_login = {login}"
            check_function(self._login, "client", "role", setting=setting, source=place)

    def run_here(self) -> AppRun:
        """Return the app of the running test, or of the wide fixture that is being set up."""
        test: RunningTest | None = Phase.test
        if test is not None:
            if not test.app_runs:
                self.try_fixture(test, test.request)
            if not test.app_runs:
                test.app_runs.append(self._begin(self.build()))
            return test.app_runs[-1]
        owner = Phase.owner
        if owner not in self.wide_runs:
            app: Any = None
            if self._config.lifespan == "session" and isinstance(owner, WideFixture):
                # No client may have needed the lifespan yet.
                owner.getfixturevalue("arena_lifespan")
                app = owner.getfixturevalue("arena_app")
            self.wide_runs[owner] = self._begin(app or self.build())
        return self.wide_runs[owner]

    def build(self) -> ASGIApp:
        """Return the app that ``arena_app`` names, or that its factory creates."""
        if not self._config.app:
            raise ConfigError(
                "there is no arena_app",
                why="clients need to know the app that they talk to",
                cause="the pytest configuration names none",
                fix="arena_app = app.main:app   in [tool.pytest.ini_options] or pytest.ini",
            )
        if self.is_factory:
            return build_app(self.app_of_option)
        return self.app_of_option  # type: ignore[return-value]  # `check_app` has checked it

    def state(self) -> AppState:
        """Record the present state of the named app, of apps that outlive a test, and of clients.

        The login of a test's client ends with the nested level in which it was.
        """
        runs = Phase.test.app_runs if Phase.test else ()
        clients = [each for each in alive(self._clients) if each.arena_run in runs]
        return AppState(self.app_of_option, clients)

    def use(self, app: ASGIApp, test: RunningTest) -> AppRun:
        """Let the clients of a test talk to this app, unless the test has one."""
        if not test.app_runs:
            if self._config.lifespan == "session" and test.request:
                test.request.getfixturevalue("arena_lifespan")
            test.app_runs.append(self._begin(app))
        return test.app_runs[-1]

    def try_fixture(self, test: RunningTest, request: Any) -> None:
        """Create the app of a test by the fixture `arena_app`, if the test has none.

        Do nothing if `arena_app` fails, or needs the fixture that pytest is setting up. Then a
        client creates the app later, or reports the failure.
        """
        if test.app_runs or self._is_in_fixture or not request:
            return
        with suppress(ConfigError):
            self.use(request.getfixturevalue("arena_app"), test)

    @contextmanager
    def in_fixture(self) -> Iterator[None]:
        """Note that the fixture `arena_app` is set up in the block."""
        self._is_in_fixture = True
        try:
            yield
        finally:
            self._is_in_fixture = False

    def new_client(self, options: Options, role: str | None = None) -> AsyncClient:
        """Return a client."""
        client = open_async_client(self.run_here(), self._new_login(role), options)
        self._clients.add(client)
        return client

    def new_test_client(self, options: Options, role: str | None = None) -> TestClient:
        """Return a sync client.

        A client of a wide fixture starts the app now. The app then runs as long as the fixture.
        """
        client = open_test_client(self.run_here(), self._new_login(role), options)
        self._clients.add(client)
        if Phase.test is None:
            client.arena_start()
        return client

    def _new_login(self, role: str | None) -> Login | None:
        """Return the login of a client with this role."""
        if role is None:
            return None
        if self._login is None:
            raise LoginError(
                f"no client can log in as {role!r}: arena_login is not set",
                why="pytest-arena does not know how clients log in to this app",
                cause="the option is missing in pytest's configuration",
                fix='arena_login = "tests.login:login", with a function like\n'
                "async def login(client, role):\n"
                '    (await client.post("/login", json={"user": role})).raise_for_status()',
            )
        return Login(self._login, role=role, path=self._config.login)

    def current_run(self) -> AppRun | None:
        """Return the run that answers a request by a socket, None between two tests."""
        test = self._current.test
        if test is None or test.settled:
            return None
        return self.wide_runs.get(Phase.owner) or self.run_here()

    def live_server(self, port: int = 0, control: ASGIApp | None = None) -> LiveServer:
        """Return the live server. The first call creates it, on a free port if ``port`` is 0.

        ``control`` answers the requests of `arena serve`.
        """
        if self.live is None:
            from pytest_arena._app._live_server import LiveServer  # noqa: PLC0415 - few runs need it

            self.live = LiveServer(self.current_run, self.loop.loop, port=port, control=control)
        self.choose()
        return self.live

    def choose(self) -> None:
        """Create the app of a test here: the live server's thread must set up no fixtures."""
        test: RunningTest | None = Phase.test
        if self.live is not None and test is not None:
            self.try_fixture(test, test.request)

    def _begin(self, app: ASGIApp) -> AppRun:
        return AppRun(
            as_asgi(app),
            lifespan=self._config.lifespan == "on",
            state=self.session_state,
            loop=self.loop,
        )

    @contextmanager
    def hold_session_lifespan(self, app: Any) -> Iterator[None]:
        """Run the app's lifespan once, in a loop of a separate thread."""
        with session_lifespan(app, self.loop) as self.session_state:
            yield

    def close_of(self, owner: object) -> None:
        """Close the apps and clients of a wide fixture."""
        app_run = self.wide_runs.pop(owner, None)
        if app_run is not None:
            app_run.close()

    def close(self) -> None:
        """Stop the loop of the apps, and with it the server."""
        self.loop.close()
