"""What a PostgreSQL server is asked for, to know what a login may do with triggers."""

from __future__ import annotations

from pytest_arena._postgresql._control import identifier

__all__ = ["BE_REPLICA", "GRANT_SINCE", "grant_replica", "may_capture", "whose"]

# With this a connection restores rows, while neither foreign keys nor the app's triggers act. Said
# by a statement: hosters that let their roles do so refuse it among the options of a login.
BE_REPLICA = "SET session_replication_role = replica"
GRANT_SINCE = 15


def grant_replica(role: str) -> str:
    """Write what gives a role the right to be a replica, since PostgreSQL 15."""
    return f"GRANT SET ON PARAMETER session_replication_role TO {identifier(role)};"


def whose() -> str:
    """Ask for the name of the role that is in use, and for the version."""
    return "SELECT current_user::text, current_setting('server_version_num')::int / 10000"


def may_capture() -> str:
    """Try, on a table that nobody else sees, whether a trigger catches what a replica writes.

    Nothing is left of it. It raises where the role may not.
    """
    return f"BEGIN; {_TRIAL}; ROLLBACK"


# An exception takes back all that a block has done: the last one is caught, and is no failure.
_TRIAL = """
DO $trial$
BEGIN
    CREATE TEMP TABLE arena_trial (n int) ON COMMIT DROP;
    CREATE TEMP TABLE arena_caught (n int) ON COMMIT DROP;
    CREATE FUNCTION pg_temp.arena_catch() RETURNS trigger LANGUAGE plpgsql AS $catch$
    BEGIN
        INSERT INTO pg_temp.arena_caught SELECT came.n FROM came;
        RETURN NULL;
    END $catch$;
    CREATE TRIGGER arena_trial AFTER INSERT ON pg_temp.arena_trial REFERENCING NEW TABLE AS came
        FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.arena_catch();
    ALTER TABLE pg_temp.arena_trial ENABLE ALWAYS TRIGGER arena_trial;
    INSERT INTO pg_temp.arena_trial VALUES (1);
    IF NOT EXISTS (SELECT FROM pg_temp.arena_caught WHERE n = 1) THEN
        RAISE EXCEPTION 'a trigger that is enabled always did not fire';
    END IF;
END $trial$
"""
