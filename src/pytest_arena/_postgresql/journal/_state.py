"""What changes without a trigger's notice? Sequences, large objects, event triggers, settings.

What they were when a level began stands in ``state``: a row for each level at whose start something
was different from the level below. Level 0 has one always, and where it is missing, the server has
crashed: it empties unlogged tables then.
"""

# ruff: noqa: S608 - names are written by identifier() and literal() alone

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "EXACT_SEQUENCES",
    "forestall",
    "latest",
    "now",
    "restart_function",
    "set_back",
    "state_table",
]

# Up to so many are read themselves, each for 2 µs. Of more, an uncalled one's number is not known:
# `setval(…, false)` on it is not seen.
EXACT_SEQUENCES = 100

_HOME = "(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())"
_OBJECTS = (
    "(SELECT count(*) || ' ' || coalesce(sum(l.oid::int8), 0) "
    "FROM pg_catalog.pg_largeobject_metadata l) || "
    # No event trigger fires for a change of one.
    "ARRAY(SELECT e.xmin FROM pg_catalog.pg_event_trigger e ORDER BY e.oid)::text"
)


def state_table(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the table anew, with what stands now as the start of level 0.

    A copy of the database is at level 0 as well, whatever a crash has left of its unlogged tables,
    and the settings of a database are not copied with it: `settle` is called by who connects first.
    """
    return f"""
DROP TABLE IF EXISTS {schema}.state, {schema}.home;
CREATE UNLOGGED TABLE {schema}.state (
    level int4 PRIMARY KEY, number int8[] NOT NULL, called bool[] NOT NULL, objects text NOT NULL,
    settings text NOT NULL, shape text NOT NULL)
    WITH (autovacuum_enabled = false, toast_tuple_target = 8160);
CREATE TABLE {schema}.home AS SELECT 0::pg_catalog.oid AS oid;
CREATE OR REPLACE FUNCTION {schema}.settle() RETURNS void LANGUAGE plpgsql AS $arena$
BEGIN
    UPDATE {schema}.home SET oid = {_HOME} WHERE oid <> {_HOME};
    IF FOUND THEN
        DELETE FROM {schema}.state;
        INSERT INTO {schema}.state SELECT 0, q.* FROM ({now(schema, sequences)}) q;
    END IF;
END
$arena$;
"""


def latest(schema: str, level: str) -> str:
    """Write the query of what a level began with, one row."""
    return (
        f"SELECT a.* FROM {schema}.state a WHERE a.level <= {level} ORDER BY a.level DESC LIMIT 1"
    )


def now(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the query of what stands now: number, called, objects, settings, shape."""
    is_exact = len(sequences) <= EXACT_SEQUENCES
    called = "coalesce(array_agg(v.called), '{}')" if is_exact else "'{}'::bool[]"
    return (
        "SELECT coalesce(array_agg(v.number), '{}') AS number, "
        f"{called} AS called, "
        f"{_OBJECTS} AS objects, {_settings(schema)} AS settings, {schema}.shape() AS shape "
        f"FROM ({_numbers(sequences)}) v"
    )


def _settings(schema: str) -> str:
    # In the index's order, and with what `settle` has looked up: nothing has to be sorted or found.
    return (
        "ARRAY(SELECT g.setrole || ' ' || g.setconfig::text FROM pg_catalog.pg_db_role_setting g "
        f"WHERE g.setdatabase = (SELECT h.oid FROM {schema}.home h) ORDER BY g.setrole)::text"
    )


def _numbers(sequences: Sequence[tuple[int, str]]) -> str:
    if not sequences:
        return "SELECT 0::int8 AS number, false AS called WHERE false"
    if len(sequences) <= EXACT_SEQUENCES:
        return " UNION ALL ".join(
            f"SELECT last_value AS number, is_called AS called FROM {name}" for _, name in sequences
        )
    return (
        "SELECT pg_catalog.pg_sequence_last_value(o.oid::pg_catalog.regclass) AS number "
        f"FROM unnest({_oids(sequences)}) o(oid)"
    )


def _oids(sequences: Sequence[tuple[int, str]]) -> str:
    return f"'{{{','.join(str(oid) for oid, _ in sequences)}}}'::pg_catalog.oid[]"


def restart_function(schema: str) -> str:
    """Write the function that sets a sequence, and takes from sessions the numbers that they hold.

    A session keeps ``CACHE`` numbers of a sequence to itself, and only an ALTER takes them from it.
    """
    return f"""
CREATE OR REPLACE FUNCTION {schema}.restart(which oid, number int8, called bool)
RETURNS int8 LANGUAGE plpgsql AS $arena$
BEGIN
    EXECUTE 'ALTER SEQUENCE ' || which::pg_catalog.regclass::text || ' RESTART';
    RETURN pg_catalog.setval(which::pg_catalog.regclass, number, called);
END
$arena$;
"""


def set_back(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the statement that sets what has moved to what it was, both of ``k``."""
    return f"""
        PERFORM CASE WHEN {_CACHE} > 1 THEN {schema}.restart(x.oid, x.number, x.called)
            ELSE pg_catalog.setval(x.oid::pg_catalog.regclass, x.number, x.called) END
        FROM ({_to_be_set(sequences, "was")}) x"""


def forestall(schema: str, sequences: Sequence[tuple[int, str]]) -> str:
    """Write the statement that has no session go on with numbers from before, of ``k``.

    They would not be seen to move.
    """
    return f"""
            PERFORM {schema}.restart(x.oid, x.number, x.called)
            FROM ({_to_be_set(sequences, "now")}) x
            WHERE {_CACHE} > 1"""


_CACHE = "(SELECT q.seqcache FROM pg_catalog.pg_sequence q WHERE q.seqrelid = x.oid)"


def _to_be_set(sequences: Sequence[tuple[int, str]], to: str) -> str:
    """Write the query of what has moved, with what it is to be set to: as it ``was``, or is."""
    # To unnest in FROM would store all of it first.
    each = (
        f"SELECT unnest({_oids(sequences)}) AS oid, unnest(k.was_number) AS was, "
        "unnest(k.number) AS now"
    )
    if len(sequences) <= EXACT_SEQUENCES:
        return (
            f"SELECT e.oid, e.{to} AS number, e.{to}_called AS called FROM ({each}, "
            "unnest(k.was_called) AS was_called, unnest(k.called) AS now_called) e "
            "WHERE e.was <> e.now OR e.was_called <> e.now_called"
        )
    # Of an uncalled one nothing was read: it begins where it was made to begin.
    start = "(SELECT q.seqstart FROM pg_catalog.pg_sequence q WHERE q.seqrelid = e.oid)"
    return (
        f"SELECT e.oid, coalesce(e.{to}, {start}) AS number, e.{to} IS NOT NULL AS called "
        f"FROM ({each}) e WHERE e.was IS DISTINCT FROM e.now"
    )
