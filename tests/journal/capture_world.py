"""Databases with a journal, apps at work in them, and what the journal should say."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from contextlib import closing, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_arena._dialects._postgresql._control import Failed, identifier, open_control
from pytest_arena._dialects._postgresql_journal._capture import fitting_schema, install
from pytest_arena._dialects._postgresql_journal._tables import find_schema, read_tables
from tests.servers.postgresql import address, connect, rows, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg

    from pytest_arena._dialects._postgresql._control import Control
    from pytest_arena._dialects._postgresql_journal._tables import JournalTable

    Images = Mapping[tuple[str, str], int]

__all__ = ["Journaled", "database", "journaled", "knows_xml", "with_known_types"]


class Journaled:
    """A database with a journal: a connection of ours that looks, and an app's."""

    def __init__(self, name: str, control: Control) -> None:
        self.name, self.control = name, control
        self.schema = find_schema(control)
        control.run("SET jit = off")  # it takes its time with questions of the catalog

    @contextmanager
    def app(self, *statements: str) -> Iterator[psycopg.Connection[Any]]:
        """Connect as an app does, and begin with these."""
        with connect(self.name) as connection:
            for statement in statements:
                connection.execute(statement)
            yield connection

    @contextmanager
    def rolled_back(self, work: str) -> Iterator[None]:
        """In this block it is done, in a transaction that then is rolled back."""
        try:
            self.control.run(f"BEGIN; {work}")
            yield
        finally:
            self.control.run("ROLLBACK")

    def written(self) -> Images:
        """What the journal says was changed: table, image, and how many more there are of it."""
        found = self.control.rows(
            """SELECT format('"%s"."%s"', n.nspname, c.relname), j.r, sum(j.op)::int """
            f"FROM {self.schema}.j JOIN pg_class c ON c.oid = j.rel "
            "JOIN pg_namespace n ON n.oid = c.relnamespace GROUP BY 1, 2 HAVING sum(j.op) <> 0"
        )
        return {(table, image): count for table, image, count in found}

    def standing(self) -> Images:
        """All rows that stand now, by another way than the journal's."""
        return Counter(
            (table.quoted, image)
            for table in read_tables(self.control)
            for image in self._of(table)
        )

    def changed(self, before: Images) -> Images:
        """What has come since then (and gone, below 0), by the tables themselves."""
        after = self.standing()
        changes = {one: after.get(one, 0) - before.get(one, 0) for one in {**after, **before}}
        return {one: count for one, count in changes.items() if count}

    def _of(self, table: JournalTable) -> list[str]:
        values = ", ".join(
            f"t.{identifier(column.name)}{'::text' if column.is_xml else ''}"
            for column in table.columns
        )
        only = "ONLY " if table.is_inherited else ""
        found = self.control.rows(f"SELECT ROW({values})::text FROM {only}{table.quoted} t")
        return [image for (image,) in found]

    def marks(self) -> list[str]:
        """What was noted of changes of the schema."""
        return [mark for (mark,) in self.control.rows(f"SELECT what FROM {self.schema}.ddl")]

    def forget(self) -> None:
        """Start anew with an empty journal, from what stands."""
        self.control.run(f"DELETE FROM {self.schema}.j; DELETE FROM {self.schema}.ddl")


@cache
def knows_xml() -> bool:
    """Whether the server was built with libxml; those of wheels are not."""
    try:
        return bool(rows("SELECT xml '<a/>'"))
    except Failed:
        return False


def with_known_types(sql: str) -> str:
    """Take text where the server does not know xml."""
    return sql if knows_xml() else re.sub(r"\bxml\b(?! version)", "text", sql)


@contextmanager
def database(*statements: str, template: str = "") -> Iterator[str]:
    """A database of the test's own, and what it begins with."""
    name = f"arena_test_{secrets.token_hex(6)}"
    run(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    try:
        run(*map(with_known_types, statements), database=name)
        yield name
    finally:
        run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def journaled(*statements: str, template: str = "", schema: str = "") -> Iterator[Journaled]:
    """Such a database, with a journal: a template has it already."""
    with (
        database(*statements, template=template) as name,
        closing(open_control(address(name))) as control,
    ):
        if not template:
            assert install(control, schema or fitting_schema(control)) == []
        yield Journaled(name, control)
