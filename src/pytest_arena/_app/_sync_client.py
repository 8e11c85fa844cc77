"""The framework's sync test client, in a thread's loop."""

from __future__ import annotations

import functools
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self, cast

from pytest_arena._app import _app_errors
from pytest_arena._app._client import add_login, note_unsent
from pytest_arena._app._entry import SENT, OpenRequest, Sent, enter
from pytest_arena._app._kind import ASGIApp, Options, Receive, Scope, Send, is_litestar
from pytest_arena._app._raised import in_words, is_disconnect

if TYPE_CHECKING:
    import httpx2 as httpx
    from starlette.testclient import WebSocketTestSession

    from pytest_arena._app._lifespan import Lifespan
    from pytest_arena._app._login import Login
    from pytest_arena._app._transport import Host

    _Base = httpx.Client
else:
    # Starlette's client is an httpx2 client or an httpx one, Litestar's an httpx one.
    _Base = object

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class TestClient(_Base):
    """A framework's test client with the framework's defaults.

    Its first request starts the app's lifespan in a thread's loop, unless the app is up. A client
    with a role then logs in. All sync clients of a test run the app in one loop. ``with`` starts
    the app and logs in at once. Its end shuts down an app that it has started.

    Raises:
        LifespanError: at a request: the app's start-up failed, or the test is over.
        LoginError: at a request: the login failed, or is an async function.
        PendingWorkError: at a request in an async test: ``db_session`` has uncommitted work.

    Example::

        def test_orders(test_client):
            assert test_client.get("/orders").status_code == 200
    """

    __test__ = False  # pytest would collect a class of the name TestClient
    _arena_host: Host
    _arena_login: Login | None
    _arena_begun: Lifespan | None  # the lifespan that this client has started

    if TYPE_CHECKING:  # each framework's client has it

        def websocket_connect(
            self, url: str, *args: object, **options: object
        ) -> WebSocketTestSession:
            """Return a websocket, which ``with`` opens."""

    def arena_use(self, host: Host, login: Login | None) -> None:
        """Set the run whose app the client calls, and the login if it has a role."""
        self._arena_host = host
        self._arena_login = login
        self._arena_begun = None

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request after the app's start, the login, and the commit of pending work."""
        login = self._arena_login
        is_first = login is not None and not login.is_done
        self._arena_ready()
        if is_first:
            add_login(self, request)
        hooks = self._arena_host.hooks
        if hooks is None:
            return super().send(request, **options)
        hooks.prepare_request()
        sent = Sent(login.role if login is not None else None)
        token = SENT.set(sent)
        try:
            response = super().send(request, **options)
        except BaseException as error:
            if sent and not is_disconnect(error):
                sent[-1].fail(in_words(error))
            raise
        finally:
            SENT.reset(token)
        for answer, record in zip([*response.history, response], sent, strict=False):
            answer.extensions["arena"] = record
        if sent and options.get("stream") and sent[-1].is_open:
            hooks.open_requests.append(OpenRequest(sent[-1], response.close))
        note_unsent(self, response)
        return response

    def arena_start(self) -> None:
        """Start the app before the first request. A later ``with`` shuts it down at its end."""
        if self._arena_host.has_lifespan:
            self._arena_begun = self._arena_join() or self._arena_begun

    def __enter__(self) -> Self:
        self.arena_start()
        self._arena_ready()
        return self

    def __exit__(self, *_: object) -> None:
        begun = self._arena_begun
        self._arena_begun = None
        if begun is not None:
            begun.close()

    def _arena_ready(self) -> None:
        self._arena_join()
        if self._arena_login is not None:
            self._arena_login.once(self, self._arena_host.hooks)

    def _arena_join(self) -> Lifespan | None:
        client: Any = self
        host = self._arena_host
        if is_litestar(host.app):  # it keeps the state of its lifespan itself
            options = dict(client.backend_options or {})
            backend = {"backend": client.backend, "backend_options": options}
            client.blocking_portal, begun = host.join(backend)
        else:
            client.portal, begun = host.join(client.async_backend)
            client.app_state.clear()
            client.app_state.update(host.state)
        return begun

    def arena_leave(self) -> None:
        """End the streams of Starlette's client that the test has not read to their end."""
        if not is_litestar(self._arena_host.app):
            self.close()


def open_test_client(
    host: Host, login: Login | None, *, options: Options
) -> TestClient:
    """Create a test client of the app's framework, with the framework's options.

    Raises:
        ConfigError: the framework's client does not import, or has no such option.
    """
    is_of_litestar = is_litestar(host.app)
    client_class = _client_class(is_of_litestar=is_of_litestar)
    # Litestar's client needs the app itself. The hook in its class sees the requests.
    app = host.app if is_of_litestar else _entering(host, login)
    try:
        client = client_class(app, **options)
    except TypeError as error:
        raise _app_errors.wrong_options(error, "the test client") from error
    client.app = host.app  # a test may use it. Starlette's transport keeps the function
    client.arena_use(host, login)
    return cast("TestClient", client)


def _entering(host: Host, login: Login | None) -> ASGIApp:
    """Return an async function, which Starlette requires, that calls the app for a client."""
    role = login.role if login is not None else None

    async def entering(scope: Scope, receive: Receive, send: Send) -> None:
        app = host.app
        hooks = host.hooks
        if hooks is None or scope["type"] == "lifespan":
            await app(scope, receive, send)
        else:
            if SENT.get() is None:  # a websocket is opened after its request
                SENT.set(Sent(role))
            await enter(app, app, scope, receive, send, hooks=hooks)

    return entering


@functools.cache
def _client_class(*, is_of_litestar: bool) -> type[Any]:
    module = "litestar.testing" if is_of_litestar else "starlette.testclient"
    try:
        with warnings.catch_warnings():
            # Starlette warns if only httpx is installed. No test can avoid that.
            warnings.simplefilter("ignore")
            framework = import_module(module).TestClient
    # Starlette raises a RuntimeError if no HTTP library is installed.
    except (ImportError, RuntimeError) as error:
        packages = f"{module} and httpx2"
        what = f"the sync test client ({error})"
        raise _app_errors.not_installed(what, packages, "http") from None
    return type("TestClient", (TestClient, framework), {"__test__": False})
