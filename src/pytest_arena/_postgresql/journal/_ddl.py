"""How is it noticed that an app has changed its schema?"""

# ruff: noqa: S608 - the schema is one of our own two

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql.journal._canon import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EVENT_TRIGGERS", "event_triggers"]

EVENT_TRIGGERS = ("!arena_changed", "!arena_dropped")
# As ADD COLUMN IF NOT EXISTS does where it is there: no catalog is changed without a number. Where
# wal_level is above minimal, to lock a table takes one as well, and it counts as a change.
_NOTHING_WRITTEN = "pg_catalog.pg_current_xact_id_if_assigned() IS NULL"
# Of a temporary table's triggers and policies, only the name tells where they are.
_IS_LASTING = "{name} IS NULL OR {name} !~ '(^| on | for |\\.)\"?pg_temp(_[0-9]+)?\"?\\.'"
_CHANGED = f"""
SELECT DISTINCT command_tag ||
    coalesce(' ' || object_identity, ' on a ' || lower(object_type), '')
FROM pg_catalog.pg_event_trigger_ddl_commands()
WHERE schema_name IS DISTINCT FROM 'pg_temp' AND command_tag <> 'REINDEX'
AND ({_IS_LASTING.format(name="object_identity")})
"""
# A column that is dropped is marked by its ALTER TABLE.
_DROPPED = f"""
SELECT DISTINCT 'DROP ' || upper(object_type) || coalesce(' ' || object_identity, '')
FROM pg_catalog.pg_event_trigger_dropped_objects()
WHERE original AND NOT is_temporary AND object_type <> 'table column'
AND ({_IS_LASTING.format(name="object_identity")})
"""


def event_triggers(schema: str) -> str:
    """Write what notes each change of the schema, one line an object, as a mark.

    A role that may not make event triggers goes without; whether they are there, the catalog says.
    """
    changed, dropped = EVENT_TRIGGERS
    statements = [
        *_event_trigger(schema, changed, "ddl_command_end", _CHANGED),
        *_event_trigger(schema, dropped, "sql_drop", _DROPPED),
    ]
    return (
        f"DO $arena_do$ BEGIN {' '.join(statements)} "
        "EXCEPTION WHEN insufficient_privilege THEN NULL; END $arena_do$;"
    )


def _event_trigger(schema: str, name: str, event: str, question: str) -> Iterator[str]:
    function, trigger = f"{schema}.{name.removeprefix('!arena_')}", f'"{name}"'
    yield (
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS event_trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path TO 'pg_catalog' AS $arena_body$ BEGIN "
        f"IF {OURS} OR {_NOTHING_WRITTEN} THEN RETURN; END IF; "
        f"INSERT INTO {schema}.ddl {question}; END $arena_body$;"
    )
    yield f"DROP EVENT TRIGGER IF EXISTS {trigger};"
    yield f"CREATE EVENT TRIGGER {trigger} ON {event} EXECUTE FUNCTION {function}();"
    yield f"ALTER EVENT TRIGGER {trigger} ENABLE ALWAYS;"
