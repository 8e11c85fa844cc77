"""Whatever an app has done to rows and committed: afterwards all stands as it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.journal.test_capture_rows import SCHEMA, WORK
from tests.journal.test_capture_texts import TYPES, VALUES, table_of
from tests.journal.world import DONE, NOTHING, World, journaled

if TYPE_CHECKING:
    from collections.abc import Iterator

MORE = """
CREATE TABLE swapped (a int UNIQUE, b int PRIMARY KEY DEFERRABLE);
CREATE TABLE spans (during int4range, EXCLUDE USING gist (during WITH &&));
CREATE TABLE pairs (a int, b text, c int, PRIMARY KEY (a, b));
CREATE TABLE one (id int PRIMARY KEY, other int);
CREATE TABLE other (id int PRIMARY KEY, one int REFERENCES one);
ALTER TABLE one ADD FOREIGN KEY (other) REFERENCES other DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE guarded (id int PRIMARY KEY, a text);
CREATE TABLE audit (id serial PRIMARY KEY, what text);
CREATE TABLE t (t int PRIMARY KEY, x text, n int, u text, top int, images text, "with_j" bool);
CREATE TABLE u (t int, images text NOT NULL, times int NOT NULL, c int, w text, k text, n int);
CREATE TABLE only_generated (a int GENERATED ALWAYS AS (1 + 1) STORED);
CREATE TABLE secret (id int PRIMARY KEY, a text);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE secret FORCE ROW LEVEL SECURITY;
CREATE TABLE hashed (id int, a text, PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (modulus 2, remainder 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (modulus 2, remainder 1);
CREATE SEQUENCE held CACHE 10;
CREATE SEQUENCE down INCREMENT -3;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'never touch it'; END $$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO audit (what) VALUES (TG_OP); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON guarded
    FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO swapped VALUES (1, 10), (2, 20), (3, 30);
INSERT INTO spans VALUES ('[1,5)'), ('[5,9)');
INSERT INTO pairs VALUES (1, 'a', 1), (1, 'b', 2), (2, 'a', 3);
INSERT INTO one VALUES (1, NULL);
INSERT INTO other VALUES (1, 1);
UPDATE one SET other = 1;
INSERT INTO guarded VALUES (1, 'a'), (2, 'b');
CREATE TRIGGER refused BEFORE DELETE ON guarded FOR EACH ROW EXECUTE FUNCTION refuse();
INSERT INTO t VALUES (1, 'x', 1, 'u', 1, 'i', true), (2, 'y', 2, 'v', 2, 'j', false);
INSERT INTO u VALUES (1, 'i', 1, 1, 'w', 'k', 1), (1, 'i', 1, 1, 'w', 'k', 1);
INSERT INTO only_generated DEFAULT VALUES;
INSERT INTO secret VALUES (1, 'a'), (2, 'b');
INSERT INTO hashed SELECT g, 'h' || g FROM generate_series(1, 9) g;
"""
HARD = {
    "u40_swap_on_unique": "UPDATE swapped SET a = -a; UPDATE swapped SET a = 4 + a",
    "u46_deferrable_key": "UPDATE swapped SET b = 40 - b",
    "u46_exclusion": "DELETE FROM spans; INSERT INTO spans VALUES ('[0,100)')",
    "u45_foreign_keys_in_a_circle": "DELETE FROM other; DELETE FROM one",
    "u40_two_columns": "DELETE FROM pairs WHERE c = 3; UPDATE pairs SET a = a + 1",
    "u47_triggers_of_the_app": "UPDATE guarded SET a = 'z'; INSERT INTO guarded VALUES (3, 'c')",
    "u39_names_of_ours": "UPDATE t SET n = 7, x = 'q'; DELETE FROM t WHERE t = 1; "
    "DELETE FROM u; INSERT INTO u VALUES (2, 'j', 2, 2, 'x', 'l', 2)",
    "u37_one_of_two_equal_rows": "DELETE FROM u WHERE ctid = (SELECT min(ctid) FROM u)",
    "u37_more_equal_rows": "INSERT INTO u SELECT * FROM u; INSERT INTO u SELECT * FROM u",
    "u39_nothing_to_insert": "DELETE FROM only_generated",
    "u55_row_security": "UPDATE secret SET a = 'z'; DELETE FROM secret WHERE id = 1",
    "u50_hash_partitions": "UPDATE hashed SET id = id + 1000; DELETE FROM hashed_0; "
    "INSERT INTO hashed VALUES (500, 'n')",
    "u50_equal_rows_in_partitions": "INSERT INTO parts SELECT * FROM parts",
    "u37_equal_rows_that_go": "DELETE FROM plain WHERE a = 1; DELETE FROM u",
    "u57_sequences": "SELECT nextval('audit_id_seq'), nextval('down'), nextval('held')",
    "u57_first_number": "SELECT setval('audit_id_seq', 1000, false)",
    "u57_called_only": "SELECT setval('down', -1, true)",
    "u57_restart": "INSERT INTO audit (what) VALUES ('a'); TRUNCATE audit RESTART IDENTITY",
    "u49_truncate_and_fill": "TRUNCATE guarded; INSERT INTO guarded VALUES (1, 'new')",
}


@pytest.fixture(scope="module")
def database() -> Iterator[World]:
    """One for all tests."""
    with journaled(SCHEMA, MORE) as world:
        yield world


@pytest.fixture
def world(database: World) -> Iterator[World]:
    """Each test has the database as the one before got it."""
    before = database.state()
    assert database.journal.enter(1) == ()
    yield database
    database.run("RESET ALL")
    assert database.state() == before
    assert database.inside("SELECT * FROM {s}.j") == []


@pytest.mark.parametrize("work", [*WORK.values(), *HARD.values()], ids=[*WORK, *HARD])
def test_it_is_taken_back(world: World, work: str) -> None:
    """Each kind of work by itself; a second leave finds nothing."""
    world.run(f"BEGIN; {work}", "COMMIT")
    assert world.journal.look(1).is_changed
    assert world.journal.leave(1) == DONE
    assert world.journal.leave(1) == NOTHING


def test_all_of_it_at_once_pitfall_041(world: World) -> None:
    """In one level, transaction by transaction."""
    for work in [*WORK.values(), *HARD.values()]:
        world.run("BEGIN", "SAVEPOINT each")
        try:
            world.run(work)
        except Exception:  # noqa: BLE001 - what does not fit the rest is left out
            world.run("ROLLBACK")
        else:
            world.run("COMMIT")
    assert world.journal.leave(1) == DONE


@pytest.mark.slow
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_level_inside_of_a_level_pitfall_041(world: World, work: str) -> None:
    """Entered twice, over each kind of work."""
    world.run(f"BEGIN; {work}", "COMMIT", "RESET ALL")
    middle = world.state()
    for _ in range(2):
        assert world.journal.enter(2) == ()
        world.run("DELETE FROM plain", "INSERT INTO plain VALUES (1, 'x')")
        world.run("UPDATE customers SET kind = 'inner'", "INSERT INTO parts VALUES (3, 'in', 3)")
        world.run("DELETE FROM top WHERE a > 1", 'INSERT INTO "S two".plain VALUES (1)')
        assert world.journal.leave(2) == DONE
        assert world.state() == middle
    world.journal.leave(1)


def test_every_type_pitfall_036() -> None:
    """With a key and without, and with values that are easily spoilt."""
    tables = [
        f"CREATE TABLE {table_of(kind)} (n int NOT NULL, v {kind} NOT NULL, w {kind});"
        f"CREATE TABLE keyed_{table_of(kind)} (id int PRIMARY KEY, v {kind});"
        f"INSERT INTO {table_of(kind)} VALUES ({n}, {value}, NULL);"
        f"INSERT INTO keyed_{table_of(kind)} VALUES ({n}, {value});"
        for kind, values in VALUES.items()
        for n, value in [(len(values), values[0])]
    ]
    with journaled(TYPES, *tables) as world:
        before = world.state()
        for kind, values in VALUES.items():
            table = table_of(kind)
            world.run(f"DELETE FROM {table}", f"UPDATE keyed_{table} SET id = id + 1")
            for n, value in enumerate(values):
                world.run(f"INSERT INTO {table} VALUES ({n}, {value}, {value})")
                world.run(f"INSERT INTO keyed_{table} VALUES (-{n}, {value})")
        assert world.journal.leave(1) == DONE
        assert world.state() == before


def test_a_virtual_column_pitfall_039() -> None:
    """There is nothing of it in a row's image."""
    with journaled("CREATE TABLE plain (a int)") as world:
        if world.app.info.server_version < 180000:
            pytest.skip("virtual columns came with PostgreSQL 18")
    table = "(a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL, c text)"
    with journaled(
        f"CREATE TABLE bare {table}; INSERT INTO bare VALUES (1, DEFAULT, 'c');"
        f"CREATE TABLE keyed {table}; ALTER TABLE keyed ADD PRIMARY KEY (a)"
    ) as world:
        before = world.state()
        world.run("UPDATE bare SET a = 5", "INSERT INTO keyed VALUES (1, DEFAULT, 'x')")
        changes = world.journal.rows_changed(level=1, is_top=True)
        assert [(table.columns, table.added) for table in changes] == [
            (("a", "c"), ((5, "c"),)),
            (("a", "c"), ((1, "x"),)),
        ]
        assert world.journal.leave(1) == DONE
        assert world.state() == before


def test_numbers_that_a_session_holds_are_taken_from_it_pitfall_057(world: World) -> None:
    """It would go on with them, and not be seen to."""
    world.run("SELECT nextval('held')")
    assert world.journal.leave(1) == DONE
    assert world.rows("SELECT nextval('held')") == [(1,)]
    world.journal.enter(2)
    with world.another("SELECT nextval('held')"):
        # It goes on from behind what the level below has taken, or it would not be seen to move.
        assert world.rows("SELECT nextval('held')") == [(21,)]
        assert world.journal.leave(2) == DONE
        assert world.rows("SELECT nextval('held')") == [(11,)]
    assert world.journal.leave(1) == DONE


def test_a_level_that_is_entered_once_and_left_twice_pitfall_057(world: World) -> None:
    """Nobody has to enter again where nobody has written."""
    world.run("INSERT INTO audit (what) VALUES ('fixture')")
    before = world.state()
    assert world.journal.enter(2) == ()
    for _ in range(3):
        world.run("INSERT INTO audit (what) VALUES ('test')")
        assert world.journal.leave(2) == DONE
        assert world.state() == before
    assert world.journal.leave(1) == DONE


def test_what_an_upper_level_began_with_ends_with_a_lower_one_pitfall_057(world: World) -> None:
    """Nobody enters either again: both begin where the lower one did."""
    before = world.state()
    world.run("SELECT setval('down', -30)")
    assert world.journal.enter(2) == ()
    world.run("SELECT setval('down', -60)")
    assert world.journal.leave(2) == DONE
    assert world.journal.leave(1) == DONE
    world.run("SELECT setval('down', -90)")
    assert world.journal.leave(2) == DONE
    assert world.state() == before


@pytest.mark.slow
def test_more_sequences_than_are_read_one_by_one_pitfall_057() -> None:
    """They are asked for their last number only."""
    names = [f"s{number}" for number in range(150)]
    with journaled(";".join(f"CREATE SEQUENCE {name} START 7" for name in names)) as world:
        world.run("SELECT setval('s3', 70)")
        world.journal.enter(1)
        before = world.state()
        world.run("SELECT nextval('s3'), nextval('s4'), nextval('s4')")
        assert world.journal.leave(1) == DONE
        assert world.state() == before
        assert world.journal.leave(1) == NOTHING


def test_what_changed_nothing_needs_nothing_pitfall_066(world: World) -> None:
    """Not even a transaction's id."""
    world.run("UPDATE plain SET a = 1 WHERE false", "SELECT * FROM customers FOR UPDATE")
    world.run("BEGIN", "DELETE FROM audit", "ROLLBACK")
    [(before,)] = world.rows("SELECT pg_current_xact_id()::text::int8")
    assert world.journal.enter(2) == ()
    assert world.journal.leave(2) == NOTHING
    assert world.journal.leave(1) == NOTHING
    assert world.rows("SELECT pg_current_xact_id()::text::int8") == [(before + 1,)]


def test_nothing_of_ours_is_a_change_pitfall_047(world: World) -> None:
    """What undo writes is not journaled."""
    world.run("DELETE FROM customers", "TRUNCATE hashed")
    assert world.journal.leave(1) == DONE
    assert not world.journal.look(1).is_changed
    assert world.journal.leave(1) == NOTHING
