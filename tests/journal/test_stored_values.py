"""Functions behind indexes, generated columns and partitions: of which is the value the same twice?

PostgreSQL believes that a function is IMMUTABLE. The journal calls it again when a row is put back.
"""

from __future__ import annotations

import pytest

from pytest_arena._postgresql.journal._capture import install
from tests.journal.world import database, journaled, schema_of_journal
from tests.servers.postgresql import address

OTHERS = """
CREATE TABLE rates (rate int);
CREATE FUNCTION low(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE FUNCTION deep(int) RETURNS int LANGUAGE sql AS 'SELECT rate FROM public.rates';
CREATE TABLE items (id int PRIMARY KEY, name text, names text[], price int, made timestamptz);
"""
UNSTEADY = {
    "a time zone": ("f(timestamptz) RETURNS text", "SELECT $1::text", "f(made)", "TIMESTAMP"),
    "a table": ("f(int) RETURNS int", "SELECT rate * $1 FROM public.rates", "f(price)", "FROM"),
    "a table, a level below": (
        "f(int) RETURNS int",
        "SELECT public.deep($1)",
        "f(price)",
        "deep(): FROM",
    ),
    "the day": ("f(text) RETURNS int", "SELECT length($1::date::text)", "f(name)", "DATE"),
    "the server's state": (
        "f(int) RETURNS text",
        "SELECT current_setting('app.n' || $1, true)",
        "f(price)",
        "CURRENT_SETTING",
    ),
    "chance": ("f(int) RETURNS float", "SELECT random() * $1", "f(price)", "random()"),
    "a configuration": (
        "f(text) RETURNS text",
        "SELECT to_tsvector($1)::text",
        "f(name)",
        "to_tsvector()",
    ),
}
STEADY = {
    "another function": ("f(text) RETURNS text", "SELECT public.low($1)", "f(name)"),
    "a joined array": ("f(text[]) RETURNS text", "SELECT array_to_string($1, ',')", "f(names)"),
    "a comment": ("f(int) RETURNS int", "SELECT $1 -- not from a table", "f(price)"),
    "a text": ("f(text) RETURNS text", "SELECT replace($1, ' FROM now() ', '')", "f(name)"),
    "a search": ("f(text) RETURNS text", "SELECT to_tsvector('english', $1)::text", "f(name)"),
    "itself": (
        "f(int) RETURNS int",
        "SELECT CASE WHEN $1 IS NOT DISTINCT FROM 0 THEN 0 ELSE public.f($1 - 1) END",
        "f(price)",
    ),
}
USES = {
    "an index": "CREATE INDEX i ON items (({call}))",
    "a predicate": "CREATE INDEX i ON items (id) WHERE ({call}) IS NULL",
    "a generated column": "ALTER TABLE items ADD g int GENERATED ALWAYS AS ({call}) STORED",
}


def function(head: str, body: str) -> str:
    """Write one that says of itself that it is immutable."""
    made = f"CREATE FUNCTION {head} LANGUAGE sql IMMUTABLE AS $f${body}\n$f$"
    return f"SET check_function_bodies = off; {made}"


@pytest.mark.parametrize("head, body, call, reason", UNSTEADY.values(), ids=UNSTEADY.keys())
def test_a_value_that_may_be_another_one_later_stops_it(
    head: str, body: str, call: str, reason: str
) -> None:
    """The line names the function, and what in it is in the way."""
    with database(OTHERS, function(head, body), USES["an index"].format(call=call)) as name:
        (gap,) = install(address(name))
        assert gap.is_fatal
        assert gap.reason.startswith("public.i stores values of the function public.f, ")
        assert f"({reason}" in gap.reason
        assert schema_of_journal(name) == ""


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_wherever_the_value_is_stored(use: str) -> None:
    """In an index, its predicate, or a column."""
    head, body, call, _ = UNSTEADY["a table"]
    with database(OTHERS, function(head, body), use.format(call=call)) as name:
        assert [gap.is_fatal for gap in install(address(name))] == [True]


@pytest.mark.parametrize("head, body, call", STEADY.values(), ids=STEADY.keys())
def test_a_value_of_its_arguments_alone_is_put_back(head: str, body: str, call: str) -> None:
    """Such a schema is journaled."""
    with journaled(OTHERS, function(head, body), USES["an index"].format(call=call)):
        pass


def test_functions_that_store_nothing_stop_nothing() -> None:
    """As that of a default, a check or a view."""
    head, body, _, _ = UNSTEADY["a table"]
    with journaled(
        OTHERS,
        function(head, body),
        "ALTER TABLE items ALTER price SET DEFAULT f(1), ADD CHECK (f(price) IS NULL OR price > 0)",
        "CREATE VIEW v AS SELECT f(price) FROM items",
    ):
        pass
