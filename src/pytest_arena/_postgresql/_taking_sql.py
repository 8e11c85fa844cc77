"""What a PostgreSQL server is told and asked about live databases that dead runs have left."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from pytest_arena._postgresql._control import identifier, literal

__all__ = [
    "is_in_the_way",
    "move",
    "offer",
    "take_over",
    "take_over_function",
    "withdraw",
]

# A copy of a small template takes less time than to take as much back.
_MOST_BYTES = 32 * 1024 * 1024


def take_over_function(runs: int, turns: int) -> str:
    """Write the function by which one run alone gets a database: its row, or NULL for none.

    A run is dead while its lock can be had. It is held to the end of the transaction, so that who
    sweeps and who takes over do not get hold of the same one.
    """
    return f"""
        CREATE FUNCTION arena.take_over(template name, mine int) RETURNS text
            LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog AS $f$
        DECLARE
            found record;
        BEGIN
            PERFORM pg_advisory_xact_lock({turns}, 0);
            FOR found IN
                SELECT d.name, d.run FROM arena.database d JOIN pg_database b ON b.datname = d.name
                WHERE d.origin = template AND d.kind = 'live' AND d.owner = current_user
                AND b.datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user)
                AND d.run <> mine ORDER BY d.created DESC
            LOOP
                IF pg_try_advisory_xact_lock({runs}, found.run) THEN
                    UPDATE arena.database SET run = mine WHERE name = found.name;
                    RETURN found.name;
                END IF;
            END LOOP;
            RETURN NULL;
        END $f$;
    """


def take_over(template: str, run: int) -> str:
    """Claim a live database that a dead run has made from a template."""
    return f"SELECT arena.take_over({literal(template)}, {run})"


def is_in_the_way(name: str, template: str) -> str:
    """Ask whether a new copy does better: a prepared transaction, or much to be taken back."""
    return (
        f"SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = {literal(name)}) OR "
        f"pg_database_size({literal(name)}) - pg_database_size({literal(template)}) > {_MOST_BYTES}"
    )


def move(name: str, final: str) -> str:
    """Give a frozen database another name, and open it: all of it or nothing.

    Its run may not be as dead as it looked: it knows the old name.
    """
    return (
        f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(final)}; "
        f"ALTER DATABASE {identifier(final)} WITH ALLOW_CONNECTIONS true; "
        f"UPDATE arena.database SET name = {literal(final)}, "
        f"created = clock_timestamp() WHERE name = {literal(name)} AND owner = current_user"
    )


def offer(name: str, template: str) -> str:
    """Say that a live database can be brought back to a template, whatever becomes of its run."""
    return (
        f"UPDATE arena.database SET origin = {literal(template)} "
        f"WHERE name = {literal(name)} AND owner = current_user"
    )


def withdraw(name: str) -> str:
    """Say that it cannot."""
    return (
        "UPDATE arena.database SET origin = NULL "
        f"WHERE name = {literal(name)} AND owner = current_user"
    )
