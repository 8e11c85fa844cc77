"""Describes what an app has set in a driver's connection, beside the session on the server."""

# Each driver has some of these attributes. SQLAlchemy begins asyncpg's transactions, so its
# adapted connection has the settings of transactions.
_TRANSACTIONS = ("autocommit", "read_only", "readonly", "deferrable")
# At a checkin SQLAlchemy resets the isolation level to the name of the server's default. A new
# connection has None. psycopg2's number for READ COMMITTED is 1.
_DEFAULT_LEVELS = {None, 1, "READ_COMMITTED", "read_committed"}


def describe_driver(dbapi_connection: object) -> object:
    """Return the settings of transactions, None if the connection is closed."""
    try:
        level = getattr(dbapi_connection, "isolation_level", None)
        state = [bool(getattr(dbapi_connection, name, None)) for name in _TRANSACTIONS]
    except Exception:  # noqa: BLE001 - psycopg2's class, which is not imported: the connection is closed
        return None
    level = getattr(level, "name", level)
    if level in _DEFAULT_LEVELS:
        level = None
    return level, state
