"""Checks the texts that PREPARE and EXECUTE IMMEDIATE take from variables of the session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena._mysql.drivers._other_databases import other_databases
from pytest_arena._mysql.drivers._reach import reaches_beyond, variables_sent
from pytest_arena._mysql.drivers._records import known_record, refused_beyond, text_of

if TYPE_CHECKING:
    from pytest_arena._product._admission import FindCore

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


def queries_for_texts(connection: object, statement: object) -> list[str]:
    """Return the queries for the texts that a statement sends. ``check_answer`` reads each text."""
    if not database_of(connection):
        return []
    text = text_of(statement)
    return [f"SELECT {variable}" for variable in variables_sent(text)]


def check_answer(find_core: FindCore, connection: object) -> None:
    """Check the text of a variable, which is the driver's last answer.

    Raises:
        ProductionDatabaseError: the text is a statement that reaches beyond its database.
    """
    core = find_core()
    if core is None:
        return
    database = database_of(connection)
    text = text_of(value_of(connection))
    beyond = reaches_beyond(text, database, other_databases.has)
    if beyond:
        refusal = refused_beyond(beyond)
        raise core.ledger.refused(refusal)


def database_of(connection: object) -> str:
    """Return the test's database of a connection, "" if the guard does not check the connection."""
    record = known_record(connection)
    if record is None:
        return ""
    admission = record.admission
    if admission is None:
        return ""
    address = admission.address
    if address is None:
        return ""
    return address.database


def value_of(connection: Any) -> object:
    """Return the only value of the driver's last answer."""
    if hasattr(connection, "store_result"):  # mysqlclient
        result = connection.store_result()
        rows = result.fetch_row()
    else:
        result = connection._result  # noqa: SLF001 - the drivers have no public name
        rows = result.rows
    row = rows[0]
    return row[0]
