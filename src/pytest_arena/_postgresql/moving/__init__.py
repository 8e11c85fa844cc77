"""How does an app's connection follow it from one event loop to the next?

A loop for each test, or for each request, would make an async driver's connections useless in the
next: they belong to the loop in which they were made. asyncpg's are led to whichever loop runs, and
stay what they are: the app's own, real and warm. Where that cannot be, a connection of another loop
is dropped without a word, and SQLAlchemy makes a new one. psycopg's and aiosqlite's need neither.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_arena._postgresql.moving._moving_trial import why_not
from pytest_arena._postgresql.moving._running import MovingConnect
from pytest_arena._postgresql.moving._transport import MovingTransport
from pytest_arena._process import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

__all__ = ["at_checkin", "prepare"]

# What came out of the trial for each kind of loop, and what has been told already.
_reasons: Final[dict[type[AbstractEventLoop], str]] = {}
_told: Final[set[str]] = set()


def prepare(dialect: Dialect, cparams: dict[str, Any], *, tell: Callable[[str], None]) -> None:
    """Let the connection that is about to be made move between loops, where that is possible.

    To be called when an engine connects, with the arguments that the driver is going to get.
    ``tell`` gets a line for the summary where a connection has to stay in its loop, each line
    once. Tries asyncpg out at its first connection in each kind of loop, which takes about 2 ms.
    """
    if isinstance(cparams.get("async_creator_fn"), MovingConnect):
        del cparams["async_creator_fn"]  # another loop's, in a dictionary that is used again
    loop = running_loop()
    if loop is None or not _is_wanted(dialect, cparams):
        return
    driver: Any = dialect.dbapi
    kind = type(loop)
    if kind not in _reasons:
        _reasons[kind] = why_not(driver.asyncpg.connect, kind)
    if _reasons[kind]:
        _tell_once(tell, _stays(f"this asyncpg, in a {kind.__name__}: {_reasons[kind]}"))
        return
    on_tls = partial(_tell_once, tell, _stays("TLS"))
    cparams["async_creator_fn"] = MovingConnect(driver.asyncpg.connect, on_tls)


def at_checkin(driver_connection: Any) -> None:
    """An idle connection belongs to no loop. To be called when one is back in its pool.

    One that listens to notifications stays where it is, and hears them while it is idle.
    """
    transport = getattr(driver_connection, "_transport", None)  # asyncpg's
    if isinstance(transport, MovingTransport) and not driver_connection._listeners:  # noqa: SLF001 - nothing public tells of them; the trial has looked
        transport.leave()


def _is_wanted(dialect: Dialect, cparams: dict[str, Any]) -> bool:
    # An app's own function may not know the argument, and its own loop is what it wants.
    own = ("async_creator_fn", "loop")
    return dialect.is_async and dialect.driver == "asyncpg" and not any(map(cparams.get, own))


def _stays(reason: str) -> str:
    return (
        "connections of asyncpg are made anew in each event loop, which takes some milliseconds "
        f"a test: they cannot move between loops ({reason})"
    )


def _tell_once(tell: Callable[[str], None], line: str) -> None:
    if line not in _told:
        _told.add(line)
        tell(line)
