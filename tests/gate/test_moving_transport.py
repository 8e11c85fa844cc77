"""Connections that move, where they come from: sockets, lists of hosts, TLS; and how they end."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pytest_arena._postgresql.moving import _moving_trial
from pytest_arena._postgresql.moving._transport import MovingTransport, RunningLoop
from tests.gate.moving_setting import (
    SERVER,
    Cell,
    Setting,
    control,
    driver_of,
    pid_of,
    setting_of,
)
from tests.servers.encrypted import answering, tls_in_front

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

asyncpg: Any = pytest.importorskip("asyncpg")
URL = SERVER.set(drivername="postgresql+asyncpg", database="postgres")


@pytest.fixture(params=["asyncio", "uvloop"])
def setting(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Setting]:
    """Connections that move, in loops of each kind."""
    with setting_of(Cell("asyncpg moves", request.param), caplog) as made:
        yield made


def moves(setting: Setting, engine: AsyncEngine) -> bool:
    """Whether one connection serves several loops."""
    return len({setting.cell.run(pid_of(engine)) for _ in range(3)}) == 1


class TestAddresses:
    """However the server is reached."""

    def test_a_socket_in_the_file_system(self, setting: Setting) -> None:
        """Its folder is named as the host."""
        with control() as ask:
            [(folders,)] = ask("SHOW unix_socket_directories")
        folder = folders.partition(",")[0]
        if not Path(folder, f".s.PGSQL.{SERVER.port}").exists():
            pytest.skip("the server has no socket here")
        url = URL.set(host=None, port=None).update_query_dict(
            {"host": folder, "port": str(SERVER.port)}
        )
        engine = setting.engine(url)
        with suppress(asyncpg.InvalidAuthorizationSpecificationError):
            assert moves(setting, engine)

    def test_several_hosts_of_which_one_answers(self, setting: Setting) -> None:
        """The first one refuses."""
        hosts = [f"{SERVER.host}:1", f"{SERVER.host}:{SERVER.port}"]
        url = URL.set(host=None, port=None).update_query_dict({"host": hosts})
        assert moves(setting, setting.engine(url))

    def test_several_hosts_of_which_one_is_chosen(self, setting: Setting) -> None:
        """Both answer, and are connected at the same time until one is taken."""
        hosts = [f"{SERVER.host}:{SERVER.port}"] * 2
        url = URL.set(host=None, port=None).update_query_dict({"host": hosts})
        engine = setting.engine(url, connect_args={"target_session_attrs": "prefer-standby"})
        assert moves(setting, engine)
        assert setting.has_soon(backends=1)

    def test_no_server(self, setting: Setting) -> None:
        """The error is the one that asyncio has for it."""
        engine = setting.engine(URL.set(port=1))
        with pytest.raises(ConnectionRefusedError):
            setting.cell.run(pid_of(engine))

    def test_arguments_that_connections_share(self, setting: Setting) -> None:
        """SQLAlchemy before 2.0.57 has one dictionary of them for each engine, in all threads."""
        engine, cparams = setting.engine(), {"ssl": False}

        async def prepare() -> Any:
            _moving_trial.prepare(engine.dialect, cparams, note=setting.notes.append)
            names: dict[str, Any] = {
                "host": SERVER.host,
                "port": SERVER.port,
                "user": SERVER.username,
            }
            connect: Any = cparams["async_creator_fn"]
            both = [await connect(ssl=False, **names) for _ in range(2)]
            loops = {id(one._loop) for one in both}
            for one in both:
                await one.close()
            return loops

        for _ in range(2):
            assert len(setting.cell.run(prepare())) == 2

    def test_a_loop_of_the_apps_own(self, setting: Setting) -> None:
        """Whoever passes a loop, or a function that connects, means it."""
        engine = setting.engine()
        for own in ("loop", "async_creator_fn"):
            given = {own: object()}
            cparams = dict(given)
            _moving_trial.prepare(engine.dialect, cparams, note=setting.notes.append)
            assert cparams == given


class TestTLS:
    """The bytes of TLS are asyncio's own affair: such a connection stays in its loop."""

    def test_offered_in_vain(self, setting: Setting) -> None:
        """The default is to ask for TLS: where the server has none, the connection moves."""
        with control() as ask:
            if ask("SHOW ssl") != [("off",)]:
                pytest.skip("the server has TLS")
        assert moves(setting, setting.engine(connect_args={"ssl": "prefer"}))

    def test_spoken(self, setting: Setting, tmp_path: Path) -> None:
        """Each loop has a connection of its own, dropped quietly, and the summary says why."""
        with tls_in_front(tmp_path, int(SERVER.port or 5432)) as port:
            engine = setting.engine(URL.set(port=port), connect_args={"ssl": "require"})
            pids = {setting.cell.run(pid_of(engine)) for _ in range(3)}
            setting.cell.run(engine.dispose())
        assert len(pids) == 3
        [note] = set(setting.notes)
        assert note.endswith("(TLS)")


class TestEnds:
    """How a connection ends, by either side, in a loop or without one."""

    def test_reset_while_a_statement_runs(self, setting: Setting) -> None:
        """A server's process is gone without a word: libuv does not tell, so we look."""
        with server_that_resets() as port:

            async def ask() -> None:
                names = dict.fromkeys(("user", "password", "database"), "arena")
                connection = await asyncpg.connect(
                    loop=RunningLoop(), host="127.0.0.1", port=port, ssl=False, **names
                )
                await connection.execute("anything")

            with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
                setting.cell.run(ask())

    def test_closed_where_no_loop_runs(self, setting: Setting) -> None:
        """The server hears of it at once."""
        engine = setting.engine()

        async def detached() -> Any:
            raw = await engine.raw_connection()
            driver = raw.driver_connection
            raw.detach()
            return driver

        driver = setting.cell.run(detached())
        driver.terminate()
        assert setting.is_left_clean()

    def test_collected_where_no_loop_runs_pitfall_017(self, setting: Setting) -> None:
        """It is closed, with asyncpg's own warning."""
        engine = setting.engine()

        async def forget() -> None:
            (await engine.raw_connection()).detach()

        with pytest.warns(ResourceWarning, match="unclosed connection"):
            setting.cell.run(forget())  # collected as soon as nobody has it
        assert setting.is_left_clean()

    def test_closed_in_another_thread(self, setting: Setting) -> None:
        """While the loop that reads it goes on."""
        engine = setting.engine()

        async def test() -> None:
            async with engine.connect() as connection:
                driver = await driver_of(connection)
                await asyncio.to_thread(driver.terminate)
                assert driver.is_closed()
                with pytest.raises(DBAPIError):
                    await connection.execute(text("SELECT 1"))

        setting.cell.run(test())
        assert moves(setting, engine)

    def test_cancelled_and_the_loop_closed_at_once_pitfall_016(self, setting: Setting) -> None:
        """Nobody waits for the cancellation, which is bound to a loop that is gone."""
        if setting.cell.loop == "uvloop":
            pytest.skip("it logs by itself that somebody was connecting when it was closed")
        if asyncpg.__version__ < "0.32":
            pytest.skip("it leaves a socket to the collector, in the loop that is gone")
        engine = setting.engine()
        loop = setting.cell.new_loop()

        async def cancel() -> Any:
            connection = await engine.connect().start()
            driver = await driver_of(connection)
            sleeping = asyncio.ensure_future(driver.execute("SELECT pg_sleep(0.5)"))
            await asyncio.sleep(0.02)
            sleeping.cancel()
            with suppress(asyncio.CancelledError):
                await sleeping
            pending = asyncio.all_tasks() - {asyncio.current_task()}
            for task in pending:
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is the point
            return connection

        connection = loop.run_until_complete(cancel())
        loop.close()
        setting.cell.run(connection.invalidate())
        setting.cell.run(connection.close())
        assert moves(setting, engine)


class TestTrial:
    """Where asyncpg, or a loop, does not do what moving rests on, connections stay."""

    def test_the_installed_asyncpg(self) -> None:
        """It does."""
        assert _moving_trial.why_not(asyncpg.connect, asyncio.SelectorEventLoop) == ""

    def test_a_loop_that_has_no_readers(self) -> None:
        """As the one that is usual on Windows."""

        class Proactor(asyncio.SelectorEventLoop):
            def add_reader(self, *_: Any) -> None:  # type: ignore[override]  # nothing is read anyway
                raise NotImplementedError

        assert "NotImplementedError" in _moving_trial.why_not(asyncpg.connect, Proactor)

    def test_no_argument_loop(self) -> None:
        """It is not accepted."""

        async def connect(*, host: str) -> None:
            raise AssertionError(host)

        assert "TypeError" in _moving_trial.why_not(connect, asyncio.SelectorEventLoop)

    def test_no_future_at_the_start_of_an_operation(self) -> None:
        """The second loop would wait for an answer that nobody reads."""

        class Deaf(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
            async def execute(self, query: str, *_: Any, **__: Any) -> str:
                await asyncio.get_running_loop().sock_sendall(
                    self._transport.get_extra_info("socket"), query.encode()
                )
                return "OK"

        async def connect(**options: Any) -> Any:
            return await asyncpg.connect(**options, connection_class=Deaf)

        found = _moving_trial.why_not(connect, asyncio.SelectorEventLoop)
        assert "creates no future" in found

    def test_another_transport(self) -> None:
        """The one that asyncpg has is not ours."""

        async def connect(**options: Any) -> Any:
            connection = await asyncpg.connect(**options)
            connection._transport, found = None, connection._transport
            found.abort()
            connection.terminate()
            return connection

        found = _moving_trial.why_not(connect, asyncio.SelectorEventLoop)
        assert "does not use the transport of its loop" in found

    def test_then_connections_stay_pitfall_004(
        self, setting: Setting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each loop has its own, and the summary says so once."""
        monkeypatch.setattr(_moving_trial, "_reasons", {})
        monkeypatch.setattr(_moving_trial, "why_not", lambda *_: "it is too new")
        engine = setting.engine()
        assert len({setting.cell.run(pid_of(engine)) for _ in range(3)}) == 3
        [note] = set(setting.notes)
        assert "it is too new" in note


class TestTransport:
    """The transport by itself, fed by the other end of a pair of sockets."""

    class Heard(asyncio.Protocol):
        """Keeps what it is told."""

        def __init__(self) -> None:
            self.data = b""
            self.lost: list[Exception | None] = []

        def data_received(self, data: bytes) -> None:
            """Something arrived."""
            self.data += data

        def connection_lost(self, exc: Exception | None) -> None:
            """It is over."""
            self.lost.append(exc)

    @pytest.fixture
    def pair(self) -> Iterator[tuple[MovingTransport, TestTransport.Heard, socket.socket]]:
        """A transport, whom it feeds, and the other end."""
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        heard = self.Heard()
        transport = MovingTransport(ours, heard, lambda _: None)
        yield transport, heard, theirs
        transport.abort()
        theirs.close()

    def test_what_was_not_sent_is_sent_in_the_next_loop(
        self, pair: tuple[MovingTransport, TestTransport.Heard, socket.socket]
    ) -> None:
        """And in order."""
        transport, _, theirs = pair
        much = bytes(range(256)) * 40_000

        async def write() -> None:
            transport.attach(asyncio.get_running_loop())
            transport.write(much)
            transport.writelines([b"the", b"end"])
            assert transport._unsent
            transport.detach()

        async def read() -> bytes:
            transport.attach(asyncio.get_running_loop())
            theirs.settimeout(0)
            found = b""
            while not found.endswith(b"theend"):
                found += await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
            return found

        asyncio.run(write())
        assert asyncio.run(read()) == much + b"theend"

    def test_the_old_loop_hears_nothing_more_pitfall_010(
        self, pair: tuple[MovingTransport, TestTransport.Heard, socket.socket]
    ) -> None:
        """A loop that goes on in another thread lets go, though it was told while it slept."""
        transport, heard, theirs = pair
        boarded, left, over = threading.Event(), threading.Event(), threading.Event()
        readers: list[Any] = []

        async def old() -> None:
            loop = asyncio.get_running_loop()
            transport.attach(loop)
            boarded.set()
            await asyncio.to_thread(left.wait)
            await asyncio.sleep(0)  # Python 3.14 may not have turned: the wait was over already
            readers.append(loop._selector.get_map().get(transport._number))  # type: ignore[attr-defined]  # asyncio's own place for it
            await asyncio.to_thread(over.wait)

        async def new() -> None:
            transport.attach(asyncio.get_running_loop())
            left.set()
            theirs.sendall(b"here")
            while heard.data != b"here":  # noqa: ASYNC110 - the protocol's calls are the events
                await asyncio.sleep(0)

        thread = threading.Thread(target=asyncio.run, args=(old(),))
        thread.start()
        boarded.wait()
        asyncio.run(new())
        over.set()
        thread.join()
        assert readers == [None]

    def test_paused_it_keeps_still_in_each_loop(
        self, pair: tuple[MovingTransport, TestTransport.Heard, socket.socket]
    ) -> None:
        """Until reading is resumed."""
        transport, heard, theirs = pair
        theirs.sendall(b"late")

        async def wait() -> None:
            transport.attach(asyncio.get_running_loop())
            transport.pause_reading()
            for _ in range(3):
                await asyncio.sleep(0)
            transport.detach()
            transport.attach(asyncio.get_running_loop())
            for _ in range(3):
                await asyncio.sleep(0)
            assert not heard.data
            transport.resume_reading()
            while not heard.data:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)

        asyncio.run(wait())
        assert heard.data == b"late"

    def test_to_a_server_that_has_hung_up_nothing_is_written(
        self, pair: tuple[MovingTransport, TestTransport.Heard, socket.socket]
    ) -> None:
        """Its last words are heard first."""
        transport, heard, theirs = pair
        theirs.sendall(b"goodbye")
        theirs.shutdown(socket.SHUT_WR)

        async def ask() -> None:
            transport.attach(asyncio.get_running_loop())
            transport.write(b"anybody there?")
            while not heard.lost:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)

        asyncio.run(ask())
        assert (heard.data, heard.lost) == (b"goodbye", [None])
        assert theirs.recv(100) == b""

    def test_it_passes_for_a_loop(self) -> None:
        """What asyncpg asks of a loop is answered by the one that runs."""

        async def ask() -> None:
            loop, passing = asyncio.get_running_loop(), RunningLoop()
            assert passing.create_future().get_loop() is loop
            assert passing.get_debug() is loop.get_debug()
            assert not passing.is_closed()

        for _ in range(2):
            asyncio.run(ask())


@contextmanager
def server_that_resets() -> Iterator[int]:
    """Greet as PostgreSQL does, and at the first question be gone."""

    def answer(accepted: socket.socket) -> None:
        with accepted:
            while data := accepted.recv(10_000):
                if data.startswith(b"Q"):
                    linger = struct.pack("ii", 1, 0)
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return
                accepted.sendall(_moving_trial._GREETING)

    with answering(answer) as port:
        yield port
