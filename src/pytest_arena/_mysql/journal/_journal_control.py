"""The connection that the journal uses, and how texts are written into statements."""

from __future__ import annotations

from typing import Protocol

NO_PROCESS_RIGHT = 1227  # ER_SPECIFIC_ACCESS_DENIED_ERROR
LOCKED = (1205, 1213)  # ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK

# The session of a control connection. Triggers neither record nor act while the variable is set.
# A comment with `M!` is read by MariaDB only.
SESSION = (
    """
    SET SESSION
        sql_mode = 'NO_AUTO_VALUE_ON_ZERO',
        time_zone = '+00:00',
        foreign_key_checks = 0,
        lock_wait_timeout = 1,
        innodb_lock_wait_timeout = 1,
        /*M! check_constraint_checks = 0, */
        autocommit = 1,
        @pytest_arena = 1""",
    # Then INSERT ... SELECT does not wait for open transactions of the app.
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
IS_TEST_CODE = "@pytest_arena IS NULL"


class StatementFailure(Exception):
    """The server refused a statement. ``code`` is its number."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class JournalControl(Protocol):
    """A connection of pytest-arena with the settings of ``SESSION``."""

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        """Execute a statement and return its rows, [] if it has none.

        The values have the types of the driver. Names are ``str``.

        Raises:
            StatementFailure: the server refused the statement.
        """


def identifier(name: str) -> str:
    """Return a name as it is written in a statement."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """Return a text as it is written in a statement under the ``sql_mode`` of ``SESSION``."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
