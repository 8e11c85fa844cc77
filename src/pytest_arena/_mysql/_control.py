"""pytest-arena's connections to MySQL and MariaDB: synchronous, by PyMySQL."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_arena._mysql._arguments import redirect
from pytest_arena._product._server_control import (
    Control,
    ServerFailure,
    import_driver,
)

if TYPE_CHECKING:
    from pytest_arena._values import Address

_CONNECT_SECONDS = 10
_PROGRAM_NAME = "pytest-arena"  # in performance_schema

# The server's error numbers (https://mariadb.com/kb/en/mariadb-error-code-reference/).
NO_DATABASE = 1049
# The client's numbers if it cannot connect, or has lost the connection.
_LOST = (0, 2002, 2003, 2005, 2055, 1053, 1927, 2006, 2013, 4031)

# With explicit settings the server's defaults have no effect. An AUTO_INCREMENT column may have the
# value 0. A copy may have dates that a strict mode refuses. A run's lock ends with its session, so
# the session must not time out.
SQL_MODE = "NO_AUTO_VALUE_ON_ZERO"
_SESSION = (
    f"SET SESSION sql_mode = '{SQL_MODE}', SESSION foreign_key_checks = 0, "
    "SESSION lock_wait_timeout = 10, SESSION innodb_lock_wait_timeout = 10, "
    "SESSION wait_timeout = 2147483, SESSION group_concat_max_len = 1048576 "
    # MySQL caches statistics of tables for a day. MariaDB ignores comments of these versions.
    "/*!80000 , SESSION information_schema_stats_expiry = 0 */"
    # A table may have rows that are older than its constraint.
    "/*M! , SESSION check_constraint_checks = 0 */"
)


class MySQLFailure(ServerFailure):
    """``code`` is the error number of the server or the client, 0 if it is unknown."""

    @property
    def is_lost(self) -> bool:
        """Whether the connection is lost. False if the server refused a statement."""
        return self.code in _LOST


class MySQLControl(Control):
    """A connection by PyMySQL."""

    def _execute(self, sql: str, *, fetch: bool) -> list[tuple[Any, ...]]:
        """Execute one statement, or several. Return the rows of the last one."""
        del fetch  # PyMySQL has read them
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(sql)
                rows = list(cursor.fetchall())
                while cursor.nextset():
                    rows = list(cursor.fetchall())
            except (_pymysql().err.Error, OSError, UnicodeError) as error:
                raise _failure(error) from error
            return rows


def connect(address: Address, *, seconds: float = _CONNECT_SECONDS) -> Any:
    """Connect by PyMySQL."""
    pymysql = _pymysql()
    arguments: dict[str, Any] = {
        "charset": "utf8mb4",
        "autocommit": True,
        "client_flag": pymysql.constants.CLIENT.MULTI_STATEMENTS,
        "connect_timeout": math.ceil(seconds),
        "init_command": _SESSION,
        "program_name": _PROGRAM_NAME,
    }
    redirect("pymysql", address, (), arguments)
    try:
        return pymysql.Connection(**arguments)
    except (pymysql.err.Error, OSError) as error:
        raise _failure(error) from error


def _pymysql() -> Any:
    return import_driver("pymysql", "PyMySQL", "MySQL and MariaDB", "mysql")


def _failure(error: Exception) -> MySQLFailure:
    number = 0
    text = str(error)
    if len(error.args) > 1 and isinstance(error.args[0], int):
        number = error.args[0]
        text = str(error.args[1])
    return MySQLFailure(text.strip() or type(error).__name__, number)


def open_control(address: Address, **options: Any) -> MySQLControl:
    """Open a connection that does not reconnect. The parameters are those of ``connect``."""
    return MySQLControl(partial(connect, address, **options), reconnects=False).open()


def literal(text: str) -> str:
    """Write a text as a literal in SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Write a name as a quoted identifier in SQL."""
    return "`" + name.replace("`", "``") + "`"
