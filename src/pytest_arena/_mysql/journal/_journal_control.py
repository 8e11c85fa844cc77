"""The session of the journal's connection."""

NO_PROCESS_RIGHT = 1227  # ER_SPECIFIC_ACCESS_DENIED_ERROR
LOCKED = (1205, 1213)  # ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK

# The session of a control connection. While the variable is set, triggers have no effect. Without
# other clients a second of patience is needed, too, because the server itself locks definitions.
# Only MariaDB reads a comment with `M!`.
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
    # With this level INSERT ... SELECT does not wait for open transactions of the app.
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
# In a trigger, MySQL 9.7 evaluates `@pytest_arena IS NULL` only once for all connections that share
# the opened table.
IS_TEST_CODE = "COALESCE(@pytest_arena, 0) = 0"
