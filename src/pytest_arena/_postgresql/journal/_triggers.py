"""Writes the triggers that record changes."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_arena._postgresql._control import identifier, literal
from pytest_arena._postgresql.journal._tables import (
    OURS,
    JournalTable,
    Relation,
    Setting,
)


@dataclass(frozen=True, slots=True)
class Capture:
    """One trigger on one relation, with its function."""

    relation: Relation
    trigger: str
    function: str  # the function's name, without the schema
    body: str
    event: str
    referencing: str = ""  # the REFERENCING clause of a statement's trigger
    is_row: bool = False
    options: str = ""  # of the function

    def create_function(self, schema: str) -> str:
        """Write the statement that creates or replaces the function."""
        return (
            f"CREATE OR REPLACE FUNCTION {schema}.{self.function}() RETURNS trigger "
            f"LANGUAGE plpgsql{self.options} AS {literal(self.body)};"
        )

    def create_trigger(self, schema: str) -> str:
        """Write the statements that create the trigger.

        The trigger fires with every session_replication_role.
        """
        trigger = identifier(self.trigger)
        each = "ROW" if self.is_row else "STATEMENT"
        return (
            f"CREATE TRIGGER {trigger} {self.event} ON {self.relation.quoted}{self.referencing} "
            f"FOR EACH {each} EXECUTE FUNCTION {schema}.{self.function}(); "
            f"ALTER TABLE ONLY {self.relation.quoted} ENABLE ALWAYS TRIGGER {trigger};"
        )


def captures(
    table: JournalTable, schema: str, settings: Sequence[Setting]
) -> Iterator[Capture]:
    """Yield the triggers of a table, and of all its partitions."""
    settings = _settings_of(table, settings)
    for relation in table.relations:
        yield from _of_changes(table, relation, schema, settings)
        if relation.is_leaf:
            yield _of_truncate(table, relation, schema, settings)


def existing_rows(
    table: JournalTable, relation: Relation, schema: str, operation: int = 1
) -> str:
    """Write the statement that journals the existing rows of a table, or of its partition.

    It journals them as inserts. With an ``operation`` of -1 it journals them as deletes.
    """
    entry = _entry(table, operation, table.image_in_trigger("r", relation.order))
    return f"INSERT INTO {schema}.j {entry} FROM ONLY {relation.quoted} AS r"


def _of_changes(
    table: JournalTable, relation: Relation, schema: str, settings: Sequence[Setting]
) -> Iterator[Capture]:
    # A statement's trigger on the parent of an INHERITS tree gets only the parent's columns. On a
    # tree with a foreign partition PostgreSQL refuses such a trigger. MERGE gives it wrong rows.
    if table.by_row and not relation.is_leaf:
        return
    for event, rows in _EVENTS.items():
        entries = []
        referencing = " REFERENCING"
        for operation, row in rows:
            transition_table = f"arena_{row.lower()}"
            referencing += f" {row} TABLE AS {transition_table}"
            if table.by_row:
                image = table.image_in_trigger(row, relation.order)
                entries.append(_entry(table, operation, image))
            else:
                entry = _entry(
                    table, operation, table.image_in_trigger("r", relation.order)
                )
                entries.append(f"{entry} FROM {transition_table} AS r")
        insert = f"INSERT INTO {schema}.j {' UNION ALL '.join(entries)}"
        letter = event[0].lower()
        yield Capture(
            relation=relation,
            trigger=f"!arena_{letter}",
            function=f"{letter}{relation.oid}",
            body=_body(insert, settings),
            event=f"AFTER {event}",
            referencing="" if table.by_row else referencing,
            is_row=table.by_row,
        )


# The operation of each row: -1 for a removed row, 1 for an added row.
_EVENTS = {
    "INSERT": [(1, "NEW")],
    "UPDATE": [(-1, "OLD"), (1, "NEW")],
    "DELETE": [(-1, "OLD")],
}


def _entry(table: JournalTable, operation: int, image: str) -> str:
    return f"SELECT {table.oid}, {operation}, pg_catalog.pg_current_xact_id(), {image}"


def _body(insert: str, settings: Sequence[Setting]) -> str:
    """Write the body of a trigger's function.

    Two sessions of an app may have different formats of dates and numbers, but equal rows must have
    equal images. If the session's settings differ, the function changes them for its insert.
    """
    if not settings:
        return f"""
BEGIN
    IF {OURS} THEN RETURN NULL; END IF;
    {insert};
    RETURN NULL;
END"""
    are_set = " AND ".join(map(_is_set, settings))
    current = ", ".join(map(_current, settings))
    set_all = ", ".join(_set(setting, literal(setting.value)) for setting in settings)
    restore = ", ".join(
        _set(setting, f"kept[{place}]") for place, setting in enumerate(settings, 1)
    )
    return f"""
DECLARE kept pg_catalog.text[];
BEGIN
    IF {OURS} THEN RETURN NULL; END IF;
    IF NOT ({are_set}) THEN
        kept := ARRAY[{current}];
        PERFORM {set_all};
    END IF;
    {insert};
    IF kept IS NOT NULL THEN
        PERFORM {restore};
    END IF;
    RETURN NULL;
END"""


def _of_truncate(
    table: JournalTable, relation: Relation, schema: str, settings: Sequence[Setting]
) -> Capture:
    """Return the trigger that copies the rows before a TRUNCATE.

    It runs with the rights of pytest-arena's role, because the right to TRUNCATE does not include
    the right to read. It copies the rows that the transaction sees, but TRUNCATE removes all rows.
    If the transaction keeps its snapshot, another transaction may have committed rows since. Then
    the trigger writes a mark.
    """
    name = f"{relation.schema}.{relation.name}"
    # Settings make a function slow, but a TRUNCATE is rare.
    values = {"row_security": "off"}
    values |= {setting.name: setting.value for setting in settings}
    fixed = "".join(
        f" SET {identifier(key)} TO {literal(to)}" for key, to in values.items()
    )
    mark = literal(f"TRUNCATE {name} in a transaction that keeps its snapshot")
    body = f"""
BEGIN
    IF {OURS} THEN RETURN NULL; END IF;
    IF pg_catalog.current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
    THEN
        INSERT INTO {schema}.ddl VALUES ({mark});
    END IF;
    {existing_rows(table, relation, schema, -1)};
    RETURN NULL;
END"""
    return Capture(
        relation=relation,
        trigger="!arena_t",
        function=f"t{relation.oid}",
        body=body,
        event="BEFORE TRUNCATE",
        options=f" SECURITY DEFINER SET search_path FROM CURRENT{fixed}",
    )


def _settings_of(table: JournalTable, settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings on which the images of this table depend."""
    if not any(column.varies for column in table.columns):
        return []
    return [
        setting for setting in settings if table.has_names or not setting.is_of_names
    ]


def _current(setting: Setting) -> str:
    return f"pg_catalog.current_setting({literal(setting.name)})"


def _is_set(setting: Setting) -> str:
    same = ", ".join(map(literal, sorted({setting.value, *setting.same})))
    return f"{_current(setting)} OPERATOR(pg_catalog.=) ANY (ARRAY[{same}])"


def _set(setting: Setting, value: str) -> str:
    return f"pg_catalog.set_config({literal(setting.name)}, {value}, true)"
