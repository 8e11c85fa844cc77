"""Explains errors of drivers' connections and pools that an earlier test has opened."""

import traceback

from sqlalchemy.exc import SQLAlchemyError

_SIGNS_OF_END = (
    "terminating connection due to administrator command",
    "server closed the connection",
    "connection was closed in the middle",
)
_OF_ANOTHER_LOOP = (
    "another operation is in progress",
    "attached to a different loop",
    "Event loop is closed",
)
_ENDED = """\
pytest-arena ends a connection that a driver has opened without an engine at the end of its test. A
global pool still has it
next: open the connection or the pool in the app's lifespan, and close it there"""
_OTHER_LOOP = """\
this connection or pool works only in the event loop that opened it, which was an earlier test's
next: open it in the app's lifespan, and keep it on app.state, not in a global"""
_OPENED_TWICE = """\
a pool of psycopg cannot be opened again, and each test starts the app
next: create the pool in the app's lifespan, or arena_lifespan = session"""


def explain(error: BaseException) -> str:
    """Explain an error of a driver's connection or pool, "" for another error."""
    package = type(error).__module__.partition(".")[0]
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = {
        str(frame.f_globals.get("__name__")).partition(".")[0] for frame in frames
    }
    if isinstance(error, SQLAlchemyError) or "sqlalchemy" in modules:
        return ""
    is_of_driver = package in {"psycopg", "psycopg2", "asyncpg"}
    if is_of_driver and any(sign in str(error) for sign in _SIGNS_OF_END):
        return _ENDED
    if "psycopg_pool" in modules and "cannot be reused" in str(error):
        return _OPENED_TWICE
    # `str` is last, because the `__str__` of an app's error may raise.
    if modules & {"asyncpg", "psycopg_pool"}:
        return _OTHER_LOOP if any(s in str(error) for s in _OF_ANOTHER_LOOP) else ""
    return ""
