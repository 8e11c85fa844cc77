"""Which triggers write down what changes, on which tables, and what do they do?"""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import identifier, literal
from pytest_arena._postgresql.journal._tables import (
    OURS,
    JournalTable,
    Relation,
    Setting,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Capture:
    """One trigger on one relation, with a function of its own."""

    relation: Relation
    trigger: str
    function: str  # its name, without the schema
    body: str
    event: str
    referencing: str = (
        ""  # what a statement's trigger calls the rows; "" for the others
    )
    is_row: bool = False
    options: str = ""  # of the function

    def create_function(self, schema: str) -> str:
        """Write the function anew, or for the first time."""
        return (
            f"CREATE OR REPLACE FUNCTION {schema}.{self.function}() RETURNS trigger "
            f"LANGUAGE plpgsql{self.options} AS {literal(self.body)};"
        )

    def create_trigger(self, schema: str) -> str:
        """Write the trigger; it fires whatever session_replication_role an app has set."""
        trigger = identifier(self.trigger)
        what = "ROW" if self.is_row else "STATEMENT"
        return (
            f"CREATE TRIGGER {trigger} {self.event} ON {self.relation.quoted}{self.referencing} "
            f"FOR EACH {what} EXECUTE FUNCTION {schema}.{self.function}(); "
            f"ALTER TABLE ONLY {self.relation.quoted} ENABLE ALWAYS TRIGGER {trigger};"
        )


def captures(
    table: JournalTable, schema: str, canon: Sequence[Setting]
) -> Iterator[Capture]:
    """Return the triggers of a table, and of all its partitions."""
    settings = _needed(canon, table)
    for relation in table.relations:
        yield from _of_changes(table, relation, schema, settings)
        if relation.is_leaf:
            yield _of_truncate(table, relation, schema, settings)


def standing(
    table: JournalTable, relation: Relation, schema: str, operation: int = 1
) -> str:
    """Write down what stands in a table, or in a partition of it, as come."""
    entry = _entry(table, operation, _image(table, relation, "r"))
    return f"INSERT INTO {schema}.j {entry} FROM ONLY {relation.quoted} AS r"


def _of_changes(
    table: JournalTable, relation: Relation, schema: str, settings: Sequence[Setting]
) -> Iterator[Capture]:
    # A statement on the parent of an INHERITS tree shows the parent's columns alone, one on a tree
    # with a foreign partition is refused where it shows rows at all, and some are shown wrong.
    if table.by_row and not relation.is_leaf:
        return
    for letter, event, old, new in _EVENTS:
        rows = [sign for sign in ((-1, old), (1, new)) if sign[1]]
        if table.by_row:
            writes = [
                _entry(table, sign, table.image_by_name(row)) for sign, row in rows
            ]
        else:
            image = _image(table, relation, "r")
            writes = [
                f"{_entry(table, sign, image)} FROM arena_{row[0].lower()} AS r"
                for sign, row in rows
            ]
        tables = "".join(f" {row} TABLE AS arena_{row[0].lower()}" for _, row in rows)
        yield Capture(
            relation=relation,
            trigger=f"!arena_{letter}",
            function=f"{letter}{relation.oid}",
            body=_body(
                f"INSERT INTO {schema}.j {' UNION ALL '.join(writes)}", settings
            ),
            event=f"AFTER {event}",
            referencing="" if table.by_row else f" REFERENCING{tables}",
            is_row=table.by_row,
        )


_EVENTS = (
    ("i", "INSERT", "", "NEW"),
    ("u", "UPDATE", "OLD", "NEW"),
    ("d", "DELETE", "OLD", ""),
)


def _image(table: JournalTable, relation: Relation, alias: str) -> str:
    """A partition may have its columns in another order, or others dropped."""
    is_itself = relation.oid == table.oid
    return table.image(alias) if is_itself else table.image_by_name(alias)


def _entry(table: JournalTable, operation: int, image: str) -> str:
    return f"SELECT {table.oid}, {operation}, pg_catalog.pg_current_xact_id(), {image}"


def _body(insert: str, settings: Sequence[Setting]) -> str:
    if not settings:
        return f"BEGIN IF {OURS} THEN RETURN NULL; END IF; {insert}; RETURN NULL; END"
    are_set = " AND ".join(map(_is_set, settings))
    kept = ", ".join(
        f"pg_catalog.current_setting({literal(one.name)})" for one in settings
    )
    set_all = ", ".join(_set(one, literal(one.value)) for one in settings)
    restored = ", ".join(_set(one, f"kept[{at}]") for at, one in enumerate(settings, 1))
    return (
        f"DECLARE kept pg_catalog.text[]; BEGIN IF {OURS} THEN RETURN NULL; END IF; "
        f"IF NOT ({are_set}) THEN kept := ARRAY[{kept}]; PERFORM {set_all}; END IF; {insert}; "
        f"IF kept IS NOT NULL THEN PERFORM {restored}; END IF; RETURN NULL; END"
    )


def _of_truncate(
    table: JournalTable, relation: Relation, schema: str, settings: Sequence[Setting]
) -> Capture:
    """Its rows are copied before they go, by us: the right to TRUNCATE is not one to read.

    The copy is made of what the transaction sees, TRUNCATE takes what is there. The two differ
    where others committed since a snapshot that is kept for the whole transaction.
    """
    name = f"{relation.schema}.{relation.name}"
    # A function's own settings: dear, and so for what is rare.
    values = {"row_security": "off"} | {one.name: one.value for one in settings}
    fixed = "".join(
        f" SET {identifier(key)} TO {literal(to)}" for key, to in values.items()
    )
    mark = literal(f"TRUNCATE {name} in a transaction that keeps its snapshot")
    body = (
        f"BEGIN IF {OURS} THEN RETURN NULL; END IF; "
        "IF pg_catalog.current_setting('transaction_isolation') IN "
        "('repeatable read', 'serializable') "
        f"THEN INSERT INTO {schema}.ddl VALUES ({mark}); END IF; "
        f"{standing(table, relation, schema, -1)}; RETURN NULL; END"
    )
    return Capture(
        relation=relation,
        trigger="!arena_t",
        function=f"t{relation.oid}",
        body=body,
        event="BEFORE TRUNCATE",
        options=f" SECURITY DEFINER SET search_path FROM CURRENT{fixed}",
    )


# Under which settings is a row written down, so that equal rows are equal texts? Two sessions of an
# app may show dates and numbers in two ways. Where a session's settings would change the text that
# a trigger writes, they are set for the moment.


def _needed(canon: Sequence[Setting], table: JournalTable) -> list[Setting]:
    """Return those that the text of this table's rows depends on."""
    if not any(column.varies for column in table.columns):
        return []
    return [one for one in canon if table.has_names or not one.is_of_names]


def _is_set(setting: Setting) -> str:
    found = f"pg_catalog.current_setting({literal(setting.name)})"
    same = ", ".join(map(literal, sorted({setting.value, *setting.same})))
    return f"{found} OPERATOR(pg_catalog.=) ANY (ARRAY[{same}])"


def _set(setting: Setting, value: str) -> str:
    return f"pg_catalog.set_config({literal(setting.name)}, {value}, true)"
