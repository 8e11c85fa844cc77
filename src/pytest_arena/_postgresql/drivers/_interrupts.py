"""Cancels a statement of a connection whose server is a thread of this process."""

from collections.abc import Callable
from functools import wraps
from typing import Any

# For the folder of a proxy's socket, the function that cancels the statement of a pid.
interrupts: dict[str, Callable[[int], None]] = {}


def cancelling(cancel: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a ``cancel`` of psycopg's or psycopg2's connections that calls a proxy directly.

    The drivers' C code holds the GIL while it waits for the server, which needs the GIL here.
    """

    @wraps(cancel)
    def call(connection: Any) -> None:
        interrupt = None
        if not connection.closed:
            interrupt = interrupts.get(connection.info.host)
        if interrupt is None:
            cancel(connection)
        else:
            interrupt(connection.info.backend_pid)

    return call
