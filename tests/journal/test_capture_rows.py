"""Whatever an app does to rows, the sum of the journal is the difference that it made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.journal.world import DONE, World, journaled
from tests.servers.postgresql import rows

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = """
CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL, kind text DEFAULT 'new');
CREATE TABLE orders (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer int REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE,
    replaces int REFERENCES orders ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    amount numeric(10, 2) NOT NULL,
    twice numeric GENERATED ALWAYS AS (amount * 2) STORED);
CREATE TABLE plain (a int, b text);
CREATE UNLOGGED TABLE quick (a int);
CREATE TABLE "Or der" ("select" int, "ü""'" text, r text, gone int, "O" int);
ALTER TABLE "Or der" DROP gone;
CREATE TABLE nothing ();
CREATE SCHEMA "S two";
CREATE TABLE "S two".plain (a int);
CREATE TABLE parts (a int, b text, c int) PARTITION BY RANGE (a);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_high (x int, c int, y text, b text, a int NOT NULL);
ALTER TABLE parts_high DROP x, DROP y;
ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (10) TO (20);
CREATE TABLE parts_rest PARTITION OF parts DEFAULT PARTITION BY LIST (a);
CREATE TABLE parts_rest_odd PARTITION OF parts_rest FOR VALUES IN (21, 23);
CREATE TABLE parts_rest_rest PARTITION OF parts_rest DEFAULT;
CREATE TABLE top (a int, b text);
CREATE TABLE low (c xml, "$arena_body$" int) INHERITS (top);
CREATE TABLE lowest (d int) INHERITS (low);
INSERT INTO customers (name) VALUES ('Ada'), ('Bea'), ('Cleo');
INSERT INTO orders (customer, replaces, amount) VALUES (1, NULL, 1), (1, 1, 2.50), (2, 2, 3);
INSERT INTO plain VALUES (1, 'x'), (1, 'x'), (1, 'x'), (2, NULL), (NULL, NULL);
INSERT INTO quick VALUES (1);
INSERT INTO "Or der" VALUES (1, 'x', 'y', 2);
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO "S two".plain VALUES (7);
INSERT INTO parts VALUES (1, 'one', 1), (11, 'eleven', 2), (21, 'odd', 3), (99, 'rest', 4);
INSERT INTO top VALUES (1, 't');
INSERT INTO low VALUES (2, 'l', '<a/>');
INSERT INTO lowest VALUES (3, 'll', '<b/>', 1, 2);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO quick VALUES (5); RETURN NULL; END $$;
CREATE FUNCTION once_more() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW.b = 'more' THEN UPDATE plain SET b = 'most' WHERE b = 'more'; END IF;
    RETURN NULL; END $$;
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW.a = 13 THEN RETURN NULL; END IF; NEW.b := NEW.b || '!'; RETURN NEW; END $$;
CREATE TRIGGER "!!first" AFTER INSERT ON customers FOR EACH STATEMENT EXECUTE FUNCTION audit();
CREATE TRIGGER more AFTER INSERT OR UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION once_more();
CREATE TRIGGER less BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION instead();
CREATE VIEW big AS SELECT * FROM plain WHERE a > 1;
CREATE RULE also AS ON INSERT TO quick DO ALSO INSERT INTO "S two".plain VALUES (NEW.a);
"""

WORK = {
    "u41_one_row_many_times": "INSERT INTO plain VALUES (3, 'n'); UPDATE plain SET a = 4 "
    "WHERE a = 3; UPDATE plain SET a = 5 WHERE a = 4; DELETE FROM plain WHERE a = 5; "
    "INSERT INTO plain VALUES (3, 'n')",
    "u37_equal_rows": "DELETE FROM plain WHERE ctid = (SELECT min(ctid) FROM plain); "
    "INSERT INTO plain SELECT 2, 'y' FROM generate_series(1, 3)",
    "u40_keys_move": "UPDATE customers SET id = id + 100",
    "u45_cascades": "DELETE FROM customers WHERE id = 1",
    "u45_cascading_update": "UPDATE customers SET id = 50 WHERE id = 1",
    "u45_set_null": "DELETE FROM orders WHERE id = 1",
    "u46_deferred_cycle": "INSERT INTO orders (id, replaces, amount) OVERRIDING SYSTEM VALUE "
    "VALUES (15, 14, 1); INSERT INTO orders (id, replaces, amount) OVERRIDING SYSTEM VALUE "
    "VALUES (14, 15, 1); SET CONSTRAINTS ALL IMMEDIATE",
    "u48_triggers_that_write": "INSERT INTO plain VALUES (8, 'more'), (13, 'dropped'); "
    "INSERT INTO customers (name) VALUES ('Dora')",
    "u48_views_and_rules": "UPDATE big SET b = 'v'; INSERT INTO quick VALUES (9)",
    "u39_identity_and_generated": "INSERT INTO orders (id, amount) OVERRIDING SYSTEM VALUE "
    "VALUES (77, 1.5); UPDATE orders SET amount = amount + 1",
    "u39_names": """UPDATE "Or der" SET "select" = 2, r = 'z'; DELETE FROM "Or der";
    INSERT INTO "Or der" VALUES (3, 'tab''"\\', NULL, 4)""",
    "u39_no_columns": "DELETE FROM nothing; INSERT INTO nothing DEFAULT VALUES",
    "u54_unlogged": "UPDATE quick SET a = a + 1",
    "u52_on_conflict": "INSERT INTO customers (id, name) VALUES (1, 'Eva'), (9, 'Fay') "
    "ON CONFLICT (id) DO UPDATE SET name = excluded.name",
    "u52_writable_cte": "WITH gone AS (DELETE FROM plain WHERE a = 1 RETURNING *), "
    "more AS (UPDATE customers SET kind = 'old' RETURNING *) "
    "INSERT INTO parts SELECT a FROM gone",
    "u52_update_from": "UPDATE plain SET b = name FROM customers WHERE id = a",
    "u52_many": "INSERT INTO plain SELECT g, 'g' || g FROM generate_series(20, 2000) g",
    "u49_truncate": "TRUNCATE plain",
    "u49_truncate_cascade": "INSERT INTO customers (name) VALUES ('Gil'); "
    "TRUNCATE customers RESTART IDENTITY CASCADE",
    "u49_truncate_no_columns": "TRUNCATE nothing",
    "u50_through_the_root": "INSERT INTO parts VALUES (2, 'a', 1), (12, 'b', 2), (50, 'c', 3); "
    "UPDATE parts SET c = c + 1; DELETE FROM parts WHERE a = 11",
    "u50_in_a_partition": "INSERT INTO parts_high (a, b, c) VALUES (13, 'b', 1); "
    "UPDATE parts_high SET b = b || '.'; DELETE FROM parts_rest WHERE a = 21; "
    "INSERT INTO parts_rest_rest VALUES (70, 'r', 0)",
    "u50_rows_that_move": "UPDATE parts SET a = a + 9; UPDATE parts_rest SET a = 23 WHERE a > 50",
    "u50_truncate_the_root": "TRUNCATE parts",
    "u50_truncate_a_partition": "TRUNCATE parts_high, parts_rest",
    "u51_through_the_parent": "UPDATE top SET a = a + 1; DELETE FROM low WHERE a = 3",
    "u51_only": "UPDATE ONLY top SET b = 'o'; INSERT INTO lowest VALUES (6, 'n', NULL, 2, 3); "
    "DELETE FROM ONLY low",
    "u51_truncate": "TRUNCATE ONLY low",
    "u51_truncate_all": "TRUNCATE top",
    "u56_same_name": 'UPDATE "S two".plain SET a = 8; SET search_path = "S two"; '
    "INSERT INTO plain VALUES (1)",
    "u33_replica_role": "SET session_replication_role = replica; DELETE FROM customers "
    "WHERE id = 1; TRUNCATE quick",
    "u42_savepoints": "INSERT INTO plain VALUES (30, 'kept'); SAVEPOINT a; DELETE FROM plain; "
    "ROLLBACK TO a; UPDATE plain SET b = 's'; RELEASE a",
}


@pytest.fixture(scope="module")
def database() -> Iterator[World]:
    """One for all: a test takes back what it did, or leaves it to the next."""
    with journaled(SCHEMA) as database:
        yield database


@pytest.fixture
def world(database: World) -> World:
    """It, with an empty journal."""
    database.empty()
    return database


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
def test_the_journal_is_the_difference(world: World, work: str) -> None:
    """By table and row, however often a row came and went."""
    before = world.standing()
    with world.rolled_back(work):
        assert world.written() == world.changed(before) != {}


def test_copy_pitfall_052(world: World) -> None:
    """COPY is an INSERT to it; an app's trigger changes the rows before."""
    before = world.standing()
    with world.another() as app, app.cursor().copy("COPY plain FROM STDIN") as copy:
        copy.write("1\tcopied\n2\t\\N\n")
    assert world.written() == world.changed(before)
    assert ('"public"."plain"', "(1,copied!)") in world.written()


def test_merge_pitfall_052(world: World) -> None:
    """All that one MERGE does."""
    with world.another() as app:
        if app.info.server_version < 150000:
            pytest.skip("MERGE came with PostgreSQL 15")
        before = world.standing()
        app.execute(
            "MERGE INTO customers c USING (VALUES (1), (2), (8)) AS v (id) ON c.id = v.id "
            "WHEN MATCHED AND v.id = 1 THEN UPDATE SET name = 'merged' "
            "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'more')"
        )
    assert world.written() == world.changed(before)
    assert len(world.written()) >= 4


MERGED = """
CREATE TABLE kept (a int, region text, b text, PRIMARY KEY (a, region)) PARTITION BY LIST (region);
CREATE TABLE kept_eu PARTITION OF kept FOR VALUES IN ('eu');
CREATE TABLE kept_rest PARTITION OF kept DEFAULT;
CREATE TABLE loose (a int, region text, b text) PARTITION BY LIST (region);
CREATE TABLE loose_eu PARTITION OF loose FOR VALUES IN ('eu');
CREATE TABLE loose_rest PARTITION OF loose DEFAULT;
INSERT INTO kept VALUES (1, 'eu', 'x'), (2, 'us', 'y'), (3, 'us', 'z');
INSERT INTO loose TABLE kept;
"""
MERGES = {
    "rows move": "WHEN MATCHED THEN UPDATE SET region = 'eu'",
    "rows move and come": (
        "WHEN MATCHED THEN UPDATE SET region = 'eu' "
        "WHEN NOT MATCHED THEN INSERT VALUES (v.a, 'us', 'new')"
    ),
    "rows stay and come": (
        "WHEN MATCHED THEN UPDATE SET b = 'matched' "
        "WHEN NOT MATCHED THEN INSERT VALUES (v.a, 'eu', 'new')"
    ),
    "rows move and go": (
        "WHEN MATCHED AND t.a = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET region = 'eu'"
    ),
}


@pytest.fixture(scope="module")
def partitions() -> Iterator[World]:
    """Partitioned tables with a key and without one."""
    if not rows("SELECT WHERE current_setting('server_version_num')::int >= 150000"):
        pytest.skip("MERGE came with PostgreSQL 15")
    with journaled(MERGED) as world:
        world.run("SET enable_hashjoin = off", "SET enable_mergejoin = off")
        yield world


@pytest.mark.parametrize("actions", MERGES.values(), ids=MERGES.keys())
@pytest.mark.parametrize("table", ["kept", "loose"])
def test_a_merge_across_partitions_is_taken_back_pitfall_050_052(
    partitions: World, table: str, actions: str
) -> None:
    """PostgreSQL shows the triggers of a statement other rows than the MERGE has changed."""
    before = partitions.state()
    partitions.journal.enter(1)
    partitions.run(
        f"MERGE INTO {table} t USING (VALUES (7), (1), (8), (2)) AS v (a) ON v.a = t.a {actions}"
    )
    assert partitions.state() != before
    assert partitions.journal.leave(1) == DONE
    assert partitions.state() == before


@pytest.mark.parametrize(
    "work",
    [
        "BEGIN; DELETE FROM customers; TRUNCATE plain; ROLLBACK",
        "UPDATE plain SET b = 'n' WHERE false",
        "INSERT INTO orders OVERRIDING SYSTEM VALUE VALUES (2, 1, 1, 1) ON CONFLICT DO NOTHING",
        "SELECT nextval('customers_id_seq')",
        "CREATE TEMP TABLE customers (a int); INSERT INTO customers VALUES (1)",
    ],
)
def test_what_changed_nothing_writes_nothing_pitfall_042(world: World, work: str) -> None:
    """Not a single entry."""
    with world.another() as app:
        app.execute(work)
    assert world.inside("SELECT * FROM {s}.j") == []


def test_virtual_columns_are_no_part_of_an_image_pitfall_039() -> None:
    """A trigger does not get their values."""
    if not rows("SELECT WHERE current_setting('server_version_num')::int >= 180000"):
        pytest.skip("they came with PostgreSQL 18")
    table = "CREATE TABLE t (a int, v int GENERATED ALWAYS AS (a * 2), b text)"
    with (
        journaled(table, "INSERT INTO t VALUES (1, DEFAULT, 'x')") as world,
        world.another("UPDATE t SET a = 2", "UPDATE t SET a = 1", "INSERT INTO t (a) VALUES (7)"),
    ):
        assert world.written() == {('"public"."t"', "(7,,)"): 1}


def test_transactions_that_commit_in_another_order_pitfall_043(world: World) -> None:
    """What is not committed is not there; in the end all is."""
    before = world.standing()
    with world.another("BEGIN") as one, world.another("BEGIN") as other:
        one.execute("UPDATE customers SET name = 'one' WHERE id = 1")
        other.execute("UPDATE customers SET name = 'other' WHERE id = 2")
        other.execute("COMMIT")
        one.execute("INSERT INTO plain VALUES (2, 'late')")
        assert world.written() == world.changed(before)
        one.execute("COMMIT")
    assert world.written() == world.changed(before)


def test_an_app_sees_what_it_would_without_pitfall_057(world: World) -> None:
    """lastval(), row counts, RETURNING, command tags."""
    with world.another() as app:
        new = app.execute("INSERT INTO customers (name) VALUES ('Hal') RETURNING id").fetchone()
        assert app.execute("SELECT lastval()").fetchone() == new
        changed = app.execute("UPDATE customers SET kind = 'k' WHERE id = %s", new)
        gone = app.execute("DELETE FROM customers WHERE id = %s RETURNING id", new)
        assert changed.rowcount == 1
        assert gone.fetchall() == [new]
        assert gone.statusmessage == "DELETE 1"


@pytest.mark.slow
def test_serializable_writers_do_not_meet_in_the_journal_pitfall_059(world: World) -> None:
    """In other tables, no transaction fails because of another."""
    for name in range(10):
        with world.another() as one, world.another() as other:
            for app in (one, other):
                app.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
            one.execute("INSERT INTO quick VALUES (%s)", (name,))
            other.execute('UPDATE "Or der" SET "O" = 5')
            one.execute("UPDATE parts_low SET b = 'x'")
            other.execute("INSERT INTO nothing DEFAULT VALUES")
            for app in (one, other):
                assert app.execute("COMMIT").statusmessage == "COMMIT"


def test_an_entry_says_which_transaction_wrote_it(world: World) -> None:
    """The outer one, from inside a savepoint, too."""
    with world.another("BEGIN") as app:
        own = app.execute("SELECT pg_current_xact_id()::text").fetchone()
        app.execute("SAVEPOINT a; INSERT INTO plain VALUES (5, 'x'); TRUNCATE nothing; COMMIT")
    found = world.inside("SELECT DISTINCT x::text FROM {s}.j")
    assert found == [own]


@pytest.mark.slow
def test_a_copy_of_the_database_goes_on_by_itself() -> None:
    """Entries, triggers and numbers of tables are copied with it."""
    tables = "CREATE TABLE parts (a int) PARTITION BY LIST (a); "
    with journaled(tables + "CREATE TABLE part PARTITION OF parts DEFAULT") as world:
        world.run("INSERT INTO parts VALUES (7)")
        world.close()
        with journaled(template=world.name) as copy:
            copy.run("DELETE FROM part")
            assert copy.written() == {}
            assert len(copy.inside("SELECT FROM {s}.j")) == 2
