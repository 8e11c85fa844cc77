"""Fetches the id that MariaDB does not report if the table has triggers.

`UPDATE number SET id = LAST_INSERT_ID(id + 1)` sets the id in the answer, which is the driver's
``cursor.lastrowid``. The triggers of ``undo`` set it to 0. The session keeps the right id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena._mysql.drivers._records import known_record, text_of
from pytest_arena._mysql.drivers._texts_in_variables import database_of, value_of

if TYPE_CHECKING:
    from collections.abc import Callable

ID_QUERY = "SELECT LAST_INSERT_ID()"
_NO_ROW = "matched: 0 "  # in the answer to an UPDATE without a row, which sets no id


def _lacks_id(connection: object, insert_id: int, message: object) -> bool:
    record = known_record(connection)
    if record is None or not record.sets_id or not database_of(connection):
        return False
    return insert_id == 0 and _NO_ROW not in text_of(message)


def answer_without_id(connection: Any) -> Any:
    """Return a driver's last answer if it lacks the id that the statement has set, or None."""
    if hasattr(connection, "store_result"):
        return None  # mysqlclient has no object for the answer, see `with_missing_id`
    answer = connection._result  # noqa: SLF001 - the drivers have no public name
    is_missing = _lacks_id(connection, answer.insert_id, answer.message)
    return answer if is_missing else None


def add_id(connection: Any, answer: Any) -> None:
    """Add the value of the last answer to an earlier answer, and make that the last answer."""
    answer.insert_id = value_of(connection)
    connection._result = answer  # noqa: SLF001 - the drivers have no public name
    connection._affected_rows = answer.affected_rows  # noqa: SLF001 - the drivers have no public name


def with_missing_id(
    query: Callable[..., object], original: Callable[..., Any]
) -> Callable[..., object]:
    """Return mysqlclient's method ``insert_id``, which a cursor calls after each statement.

    ``query`` sends a statement.
    """

    def insert_id(connection: Any) -> object:
        number = original(connection)
        if not _lacks_id(connection, number, connection.info()):
            return number
        query(connection, ID_QUERY)
        return value_of(connection)

    return insert_id
