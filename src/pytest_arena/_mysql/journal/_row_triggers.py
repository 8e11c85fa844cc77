"""Writes the journal's tables and triggers, and guards for the app's triggers.

The triggers record the key of each changed row, not its values. The server restores the values from
the template, so it never converts a value to a text and back.
"""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._mysql._control import identifier, literal
from pytest_arena._mysql.journal._journal_control import IS_TEST_CODE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._mysql._control import MySQLControlLine
    from pytest_arena._mysql.journal._schema_facts import AppTable, SchemaFacts

# Kinds of entries. A cascade fires no trigger, so an entry says whether a cascade may follow.
PLAIN = 0
MAY_CASCADE = 1
CASCADED = 2

_GUARD = f"IF {IS_TEST_CODE} THEN\n"
_OURS = f"IF {IS_TEST_CODE} THEN /* pytest-arena */"


def journal_names(facts: SchemaFacts) -> dict[tuple[str, ...], str]:
    """Return the name of the journal for each signature of a key."""
    signatures = dict.fromkeys(table.signature for table in facts.tables.values())
    return {signature: f"keys_{n}" for n, signature in enumerate(signatures)}


def journal_tables(side: str, names: dict[tuple[str, ...], str]) -> Iterator[str]:
    """Write the statements that create the journals.

    They have no AUTO_INCREMENT, which would change the id that the app's driver reports.
    """
    for signature, name in names.items():
        keys = "".join(
            f", k{n} {definition} NULL" for n, definition in enumerate(signature)
        )
        yield (
            f"CREATE TABLE {identifier(side)}.{name} "
            f"(t SMALLINT UNSIGNED NOT NULL, kind TINYINT NOT NULL{keys}) "
            "ENGINE = InnoDB STATS_PERSISTENT = 0"
        )


def row_triggers(
    database: str, facts: SchemaFacts, journal: str, table: AppTable
) -> Iterator[str]:
    """Write the statements that create a table's triggers.

    ``journal`` is the quoted name of its journal.
    """
    cascades = facts.cascades_from(table.name)
    on_delete = MAY_CASCADE if any(key.on_delete for key in cascades) else PLAIN
    on_update = MAY_CASCADE if any(key.on_update for key in cascades) else PLAIN
    new = _values(table, "NEW")
    old = _values(table, "OLD")
    insert = f"INSERT INTO {journal} VALUES ({table.number}"
    same = " AND ".join(
        f"OLD.{identifier(column.name)} <=> NEW.{identifier(column.name)}"
        for column in table.key
    )
    of_new_key = ""
    if table.key:
        of_new_key = f"IF NOT ({same}) THEN {insert}, {on_update}{new}); END IF;"
    bodies = {
        "INSERT": f"{insert}, {PLAIN}{new});",
        "UPDATE": f"{insert}, {on_update}{old}); {of_new_key}",
        "DELETE": f"{insert}, {on_delete}{old});",
    }
    target = f"{identifier(database)}.{identifier(table.name)}"
    for event, body in bodies.items():
        name = identifier(f"arena_{event.lower()}_{table.number}")
        yield (
            f"CREATE TRIGGER {identifier(database)}.{name} AFTER {event} ON {target} "
            f"FOR EACH ROW {_OURS} {body} END IF"
        )


def is_of_journal(action: str) -> bool:
    """Return whether the body of a trigger is a journal's."""
    return action.startswith(_OURS)


def _values(table: AppTable, row: str) -> str:
    return "".join(f", {row}.{identifier(column.name)}" for column in table.key)


def guard_app_triggers(control: MySQLControlLine, database: str) -> None:
    """Replace each trigger of the app by a trigger without effect on a control connection.

    Otherwise the app's triggers would fire when rows are restored. Their order stays the same. This
    also drops the triggers of an earlier journal.
    """
    triggers = control.rows(f"""
        SELECT TRIGGER_NAME, ACTION_TIMING, EVENT_MANIPULATION, EVENT_OBJECT_TABLE,
            ACTION_STATEMENT, DEFINER, SQL_MODE, COLLATION_CONNECTION
        FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {literal(database)}
        ORDER BY EVENT_OBJECT_TABLE, EVENT_MANIPULATION, ACTION_TIMING, ACTION_ORDER""")
    if not triggers:
        return
    [(mode, collation)] = control.rows("SELECT @@sql_mode, @@collation_connection")
    for (
        name,
        timing,
        event,
        table,
        action,
        definer,
        its_mode,
        its_collation,
    ) in triggers:
        user, _, host = definer.rpartition("@")
        trigger = f"{identifier(database)}.{identifier(name)}"
        control.rows(f"DROP TRIGGER {trigger}")
        if is_of_journal(action):
            continue
        guard = "" if action.startswith(_GUARD) else _GUARD
        end = "\n; END IF" if guard else ""
        control.rows(
            f"SET SESSION sql_mode = {literal(its_mode)}, collation_connection = {its_collation}"
        )
        control.rows(
            f"CREATE DEFINER = {identifier(user)}@{identifier(host)} TRIGGER {trigger} "
            f"{timing} {event} ON {identifier(database)}.{identifier(table)} FOR EACH ROW "
            f"{guard}{action}{end}"
        )
        control.rows(
            f"SET SESSION sql_mode = {literal(mode)}, collation_connection = {collation}"
        )
