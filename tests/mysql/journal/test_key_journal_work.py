"""What an app may do in a level, and what its end restores."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql.journal._key_journal import SchemaChanged
from pytest_arena._mysql.journal._schema_facts import find_reasons_against_undo, read_schema
from pytest_arena._product import Held
from tests.mysql.journal.world import LeftJournal
from tests.mysql.server import connect

if TYPE_CHECKING:
    from pathlib import Path

    from tests.mysql.journal.world import MySQLWorld

pytestmark = pytest.mark.slow

SHOP = (
    "CREATE TABLE customer (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) NOT NULL UNIQUE)",
    (
        "CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, customer INT, total INT NOT NULL, "
        "FOREIGN KEY (customer) REFERENCES customer (id) ON DELETE CASCADE)"
    ),
    (
        "CREATE TABLE line (orders INT, n INT, note TEXT, PRIMARY KEY (orders, n), "
        "FOREIGN KEY (orders) REFERENCES orders (id) ON DELETE CASCADE ON UPDATE CASCADE)"
    ),
    (
        "CREATE TABLE visit (at DATETIME, customer INT, "
        "FOREIGN KEY (customer) REFERENCES customer (id) ON DELETE SET NULL)"
    ),
    "INSERT INTO customer VALUES (1, 'Ada'), (2, 'Bob'), (3, 'Cyd')",
    "INSERT INTO orders VALUES (1, 1, 10), (2, 1, 20), (3, 2, 30)",
    "INSERT INTO line VALUES (1, 1, 'a'), (1, 2, 'b'), (3, 1, 'c')",
    "INSERT INTO visit VALUES ('2026-01-01', 1), ('2026-01-01', 1), ('2026-01-02', 2)",
)


@pytest.fixture
def shop(worlds: type[MySQLWorld]) -> MySQLWorld:
    """A small database with cascades."""
    return worlds(*SHOP)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO customer (name) VALUES ('Dan'), ('Eve')",
        "INSERT IGNORE INTO customer (name) VALUES ('Ada'), ('Eve')",
        "INSERT INTO customer VALUES (1, 'Ada') ON DUPLICATE KEY UPDATE name = 'Zoe'",
        "REPLACE INTO customer VALUES (9, 'Ada')",
        "REPLACE INTO orders VALUES (1, 2, 99)",
        "UPDATE customer SET id = id + 100 ORDER BY id DESC",
        (
            "UPDATE customer c, orders o SET c.name = 'x', o.total = 0 WHERE c.id = o.customer "
            "AND c.id = 2"
        ),
        "DELETE c, o FROM customer c JOIN orders o ON o.customer = c.id WHERE c.id = 2",
        "DELETE FROM customer",
        "DELETE FROM customer WHERE id = 1",
        "UPDATE orders SET id = 50 WHERE id = 1",
        "INSERT INTO visit SELECT * FROM visit",
        "DELETE FROM visit WHERE customer = 1 LIMIT 1",
        "TRUNCATE visit",
    ],
)
def test_each_kind_of_statement(shop: MySQLWorld, statement: str) -> None:
    """The rows and counters are restored, whatever has changed them."""
    before = shop.content()
    for _ in range(2):
        shop.journal.enter()
        if "customer SET id" in statement:
            shop.run("DELETE FROM orders", "DELETE FROM visit")
        shop.run(statement)
        assert shop.content() != before
        assert shop.journal.leave()
        assert shop.content() == before


def test_rows_of_a_file(shop: MySQLWorld, tmp_path: Path) -> None:
    """LOAD DATA fires the triggers."""
    rows = tmp_path / "rows"
    rows.write_text("8\tHal\n9\tIda\n")
    before = shop.content()
    shop.journal.enter()
    with shop.connect(local_infile=True) as connection:
        shop.control.rows("SET GLOBAL local_infile = 1")
        shop.run(f"LOAD DATA LOCAL INFILE '{rows}' INTO TABLE customer", connection=connection)
    assert shop.run("SELECT COUNT(*) FROM customer") == [(5,)]
    shop.journal.leave()
    assert shop.content() == before


def test_the_id_that_a_driver_reports(shop: MySQLWorld) -> None:
    """The triggers change neither the reported id nor the number of rows."""
    shop.journal.enter()
    with shop.app.cursor() as cursor:
        assert cursor.execute("INSERT INTO customer (name) VALUES ('Dan')") == 1
        assert cursor.lastrowid == 4
        assert cursor.execute("INSERT INTO visit VALUES (NOW(), 4)") == 1
        assert cursor.lastrowid == 0
        assert cursor.execute("UPDATE customer SET name = CONCAT(name, '!')") == 4
    assert shop.run("SELECT LAST_INSERT_ID()") == [(4,)]


def test_a_rolled_back_transaction_moves_only_the_counter(shop: MySQLWorld) -> None:
    """A rollback removes the entries with the rows. The counter is restored."""
    before = shop.content()
    shop.journal.enter()
    shop.run("BEGIN", "INSERT INTO customer (name) VALUES ('Dan')", "ROLLBACK")
    assert shop.journal.is_untouched()
    assert not shop.journal.leave()
    assert shop.content() == before


def test_levels(shop: MySQLWorld) -> None:
    """Each level restores its start, also above a level that has changed rows."""
    journal = shop.journal
    start = shop.content()
    journal.enter()
    shop.run("INSERT INTO customer (name) VALUES ('Dan')", "DELETE FROM customer WHERE id = 1")
    fixture = shop.content()
    for _ in range(3):
        journal.enter()
        shop.run("INSERT INTO line VALUES (3, 7, 'x')", "DELETE FROM customer")
        assert journal.leave()
        assert shop.content() == fixture
        journal.enter()
        assert journal.is_untouched()
        assert not journal.leave()
    shop.run("UPDATE customer SET name = 'Eve' WHERE id = 4")
    fixture = shop.content()
    journal.enter()
    shop.run("TRUNCATE visit", "UPDATE customer SET name = 'x' WHERE id = 4")
    journal.enter()
    shop.run("INSERT INTO customer (name) VALUES ('Fay')", "INSERT INTO visit VALUES (NOW(), 4)")
    assert journal.depth == 3
    journal.leave()
    journal.leave()
    assert shop.content() == fixture
    journal.leave()
    assert shop.content() == start
    assert journal.depth == 0


def test_copies_of_a_wide_level_are_kept(shop: MySQLWorld) -> None:
    """A test above a wide level copies no table again, and the end of the level drops them."""
    journal = shop.journal
    journal.enter()
    shop.run("DELETE FROM customer WHERE id = 1")
    for _ in range(3):
        journal.enter()
        shop.run("DELETE FROM customer")
        journal.leave()
    made = [statement for statement in shop.control.log if "copy_" in statement[:60]]
    assert len([statement for statement in made if statement.startswith("CREATE")]) == 4
    journal.leave()
    copies = shop.control.rows(f"SHOW TABLES IN `{shop.side}` LIKE 'copy%'")
    assert copies == []


def test_a_wide_level_goes_on_after_a_test(shop: MySQLWorld) -> None:
    """What it writes, truncates and reports after a level above it, from its start."""
    journal = shop.journal
    start = shop.content()
    journal.enter()
    shop.run("INSERT INTO visit VALUES ('2026-02-02', 1)")
    first = journal.moment()
    journal.enter()
    shop.run("DELETE FROM visit")
    journal.leave()
    shop.run("INSERT INTO visit VALUES ('2026-02-02', 2)")
    [changed] = journal.rows_changed(first)
    assert len(changed.added) == 1
    [changed] = journal.rows_changed()
    assert len(changed.added) == 2
    shop.run("TRUNCATE visit")
    fixture = shop.content()
    journal.enter()
    shop.run("INSERT INTO visit VALUES ('2026-02-02', 3)")
    journal.leave()
    assert shop.content() == fixture
    journal.enter(is_used=False)
    assert not journal.leave()
    journal.leave()
    assert shop.content() == start


def test_a_cascade_of_rows_that_a_wide_level_has_moved(shop: MySQLWorld) -> None:
    """A row that refers to another parent than at the start of its level is found."""
    journal = shop.journal
    start = shop.content()
    journal.enter()
    shop.run("UPDATE orders SET customer = 3 WHERE id = 3")
    journal.enter()
    journal.leave()
    shop.run("DELETE FROM customer WHERE id = 3")
    fixture = shop.content()
    journal.enter()
    shop.run("INSERT INTO orders VALUES (3, 1, 1)")
    journal.leave()
    assert shop.content() == fixture
    journal.leave()
    assert shop.content() == start


def test_a_forgotten_level(shop: MySQLWorld) -> None:
    """Its rows stay, and the level below restores them."""
    journal = shop.journal
    start = shop.content()
    journal.enter()
    shop.run("DELETE FROM customer WHERE id = 1")
    journal.enter()
    shop.run("UPDATE customer SET name = 'x' WHERE id = 2")
    journal.enter()
    shop.run("DELETE FROM orders")
    journal.leave()
    kept = shop.content()
    journal.cut_to(journal.depth - 1)
    assert shop.content() == kept
    journal.enter()
    shop.run("DELETE FROM customer")
    journal.leave()
    assert shop.content() == kept
    journal.leave()
    assert shop.content() == start


def test_rows_written_before_the_first_level(shop: MySQLWorld) -> None:
    """They belong to no level, and stay."""
    shop.run("INSERT INTO customer (name) VALUES ('Dan')")
    kept = shop.content()
    shop.journal.enter()
    shop.run("DELETE FROM customer")
    shop.journal.leave()
    assert shop.content() == kept


def test_triggers_of_the_app(worlds: type[MySQLWorld]) -> None:
    """They fire in tests in their order, and not when rows are restored."""
    world = worlds(
        "CREATE TABLE item (id INT PRIMARY KEY, name VARCHAR(20), n INT DEFAULT 0)",
        "CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, what TEXT)",
        "INSERT INTO item VALUES (1, 'a', 0), (2, 'b', 0)",
        "CREATE TRIGGER one BEFORE INSERT ON item FOR EACH ROW SET NEW.name = CONCAT(NEW.name, 1)",
        "CREATE TRIGGER z BEFORE INSERT ON item FOR EACH ROW SET NEW.name = CONCAT(NEW.name, 3)",
        "CREATE TRIGGER second BEFORE INSERT ON item FOR EACH ROW PRECEDES z "
        "SET NEW.name = CONCAT(NEW.name, 2)",
        "CREATE TRIGGER noted AFTER INSERT ON item FOR EACH ROW "
        "work: BEGIN DECLARE x INT DEFAULT 1; -- a comment\n"
        "IF NEW.id = 5 THEN LEAVE work; END IF;"
        "INSERT INTO log (what) VALUES (CONCAT('in ', NEW.name)); END",
        "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
        "CREATE TRIGGER gone AFTER DELETE ON item FOR EACH ROW "
        "INSERT INTO \"log\" (what) VALUES (CONCAT('\\', OLD.name)) -- the end",
        "SET sql_mode = ''",
        "CREATE TRIGGER kept BEFORE DELETE ON log FOR EACH ROW "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'a log is kept'",
    )
    before = world.content()
    world.journal.enter()
    world.run("INSERT INTO item VALUES (4, 'd', 1), (5, 'e', 1)", "DELETE FROM item WHERE id = 1")
    assert world.run("SELECT name FROM item ORDER BY id") == [("b",), ("d123",), ("e123",)]
    assert world.run("SELECT what FROM log ORDER BY id") == [("in d123",), ("\\a",)]
    assert [rows.table for rows in world.journal.rows_changed()] == ["item", "log"]
    world.journal.leave()
    assert world.content() == before


def test_deep_and_circular_cascades(worlds: type[MySQLWorld]) -> None:
    """Rows that a cascade of a cascade has changed, through a circle and without a key."""
    world = worlds(
        # MySQL 8.4 and later refuse a reference to an index that is not unique.
        "SET @x = 1 /*!80400 , SESSION restrict_fk_on_non_standard_key = OFF */",
        "CREATE TABLE node (id INT PRIMARY KEY, up INT, code VARCHAR(9) NOT NULL, UNIQUE (code), "
        "FOREIGN KEY (up) REFERENCES node (id) ON DELETE CASCADE)",
        "CREATE TABLE tag (id INT PRIMARY KEY, code VARCHAR(9), KEY (code), "
        "FOREIGN KEY (code) REFERENCES node (code) ON DELETE SET NULL ON UPDATE CASCADE)",
        "CREATE TABLE plain (tag INT, FOREIGN KEY (tag) REFERENCES tag (id) ON DELETE CASCADE "
        "ON UPDATE CASCADE)",
        "CREATE TABLE leaf (id INT PRIMARY KEY, code VARCHAR(9), "
        "FOREIGN KEY (code) REFERENCES tag (code) ON UPDATE CASCADE ON DELETE CASCADE)",
        "INSERT INTO node VALUES (1, NULL, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, 3, 'd'), "
        "(5, 5, 'e')",
        "INSERT INTO tag VALUES (1, 'd'), (2, 'e'), (3, NULL)",
        "INSERT INTO plain VALUES (1), (1), (2)",
        "INSERT INTO leaf VALUES (1, 'd'), (2, 'e')",
    )
    before = world.content()
    for statements in (
        ("DELETE FROM leaf WHERE id = 1", "DELETE FROM node WHERE id = 1"),
        ("UPDATE node SET code = 'z' WHERE id = 4", "UPDATE tag SET id = 9 WHERE id = 1"),
        ("UPDATE node SET code = 'E' WHERE id = 5",),
        (
            "INSERT INTO node VALUES (7, 3, 'n')",
            "INSERT INTO tag VALUES (8, 'n')",
            "UPDATE plain SET tag = 8 WHERE tag = 2",
            "DELETE FROM leaf",
            "DELETE FROM tag WHERE id = 8",
            "DELETE FROM node WHERE id = 2",
        ),
    ):
        world.journal.enter()
        world.run(*statements)
        world.journal.moment()
        world.journal.leave()
        assert world.content() == before


def test_orphans(worlds: type[MySQLWorld]) -> None:
    """A cascade deletes a row whose parent did not exist at the start."""
    world = worlds(
        *SHOP, "SET foreign_key_checks = 0", "INSERT INTO orders VALUES (9, 99, 5), (8, 98, 6)"
    )
    before = world.content()
    world.journal.enter()
    world.run("INSERT INTO customer VALUES (99, 'Xia')", "DELETE FROM customer WHERE id = 99")
    assert world.run("SELECT COUNT(*) FROM orders WHERE id = 9") == [(0,)]
    world.journal.leave()
    assert world.content() == before


@pytest.mark.parametrize(
    "statement, kind",
    [
        ("CREATE TABLE fresh (id INT)", "a table or a view"),
        ("ALTER TABLE customer ADD COLUMN age INT", "a table or a view"),
        ("ALTER TABLE customer ALTER name SET DEFAULT 'x'", "a table or a view"),
        ("ALTER TABLE customer COMMENT 'x'", "a table or a view"),
        ("CREATE INDEX i ON orders (total)", "a table or a view"),
        ("DROP TABLE visit", "a table or a view"),
        ("RENAME TABLE visit TO visits", "a table or a view"),
        ("CREATE VIEW v AS SELECT 1", "a table or a view"),
        ("CREATE TRIGGER x BEFORE INSERT ON visit FOR EACH ROW SET @x = 1", "a trigger"),
        ("DROP TRIGGER arena_insert_0", "a trigger"),
        ("CREATE PROCEDURE p() SELECT 1", "a procedure or a function"),
        ("CREATE FUNCTION f(a INT) RETURNS INT RETURN a", "a procedure or a function"),
        ("CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1", "an event"),
        ("ALTER DATABASE CHARACTER SET ascii", "the database"),
        (
            "ALTER TABLE line ADD KEY (orders), DROP PRIMARY KEY, ADD PRIMARY KEY (n, orders)",
            "a table or a view",
        ),
    ],
)
def test_a_changed_schema_is_refused(shop: MySQLWorld, statement: str, kind: str) -> None:
    """The database is replaced, and the level has the rows of its start."""
    journal = shop.journal
    start = shop.content()
    journal.enter()
    shop.run("UPDATE customer SET name = 'Eve' WHERE id = 2")
    fixture = shop.content()
    journal.enter()
    shop.run(f"USE `{shop.database}`", "DELETE FROM customer", statement)
    assert not journal.is_untouched()
    with pytest.raises(SchemaChanged) as caught:
        journal.leave()
    assert kind in caught.value.args
    shop.build(shop.database, shop.script)
    shop.run(f"USE `{shop.database}`")
    journal.reinstall(shop.database)
    assert journal.depth == 2
    assert shop.content() == fixture
    shop.run("DELETE FROM customer")
    assert journal.leave()
    assert shop.content() == fixture
    journal.leave()
    assert shop.content() == start


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMPORARY TABLE customer (id INT)",
        "TRUNCATE visit",
        "ALTER TABLE visit FORCE",
        "OPTIMIZE TABLE visit",
        "ANALYZE TABLE visit",
        "ALTER TABLE customer AUTO_INCREMENT = 99",
        "CREATE DATABASE IF NOT EXISTS arena_test_other",
    ],
)
def test_statements_that_change_no_schema(shop: MySQLWorld, statement: str) -> None:
    """They need no new copy."""
    start = shop.content()
    shop.journal.enter()
    shop.run("UPDATE visit SET customer = 3", statement)
    shop.journal.leave()
    shop.control.rows("DROP DATABASE IF EXISTS arena_test_other")
    assert shop.content() == start


def test_an_open_transaction_holds_the_level(shop: MySQLWorld) -> None:
    """The error names the connection. After its end the level can be left."""
    start = shop.content()
    shop.journal.enter()
    shop.run("INSERT INTO customer (name) VALUES ('Dan')")
    with shop.connect() as other:
        shop.run("BEGIN", "UPDATE orders SET total = 0", connection=other)
        with pytest.raises(Held, match=f"backend {shop.pid(other)}"):
            shop.journal.leave()
        assert shop.journal.depth == 1
    shop.journal.leave()
    assert shop.content() == start


def test_a_moment_waits_for_no_transaction(shop: MySQLWorld) -> None:
    """Rows of open transactions are left out, also if a cascade must be followed."""
    journal = shop.journal
    journal.enter()
    shop.run("DELETE FROM customer WHERE id = 1")
    with shop.connect() as other:
        shop.run("BEGIN", "DELETE FROM customer WHERE id = 2", connection=other)
        first = journal.moment()
        shop.run("COMMIT", connection=other)
    [customer] = [rows for rows in journal.rows_changed(until=first) if rows.table == "customer"]
    assert customer.removed == ((1, "Ada"),)
    [customer] = [rows for rows in journal.rows_changed(first) if rows.table == "customer"]
    assert customer.removed == ((2, "Bob"),)
    journal.leave()


def test_a_reader_holds_a_moved_counter(shop: MySQLWorld) -> None:
    """ALTER TABLE waits for transactions that have read the table."""
    start = shop.content()
    shop.journal.enter()
    shop.run("INSERT INTO customer (name) VALUES ('Dan')")
    with shop.connect() as other:
        shop.run("BEGIN", "SELECT * FROM customer", connection=other)
        with pytest.raises(Held, match=f"backend {shop.pid(other)}"):
            shop.journal.leave()
    shop.journal.leave()
    assert shop.content() == start


def test_a_prepared_transaction_holds_the_level(shop: MySQLWorld) -> None:
    """XA PREPARE keeps locks without a connection."""
    start = shop.content()
    shop.journal.enter()
    with shop.connect() as other:
        shop.run(
            "XA START 'arena'",
            "DELETE FROM visit",
            "XA END 'arena'",
            "XA PREPARE 'arena'",
            connection=other,
        )
        with pytest.raises(Held):
            shop.journal.leave()
        shop.run("XA COMMIT 'arena'", connection=other)
    assert shop.journal.leave()
    assert shop.content() == start


def test_the_journal_waits_for_no_lock_of_another_database(worlds: type[MySQLWorld]) -> None:
    """A waiting DROP locks a table of the other database. The journal opens no table of it."""
    other = worlds("CREATE TABLE first (a INT)", "CREATE TABLE used (a INT)", is_journaled=False)
    world = worlds("CREATE TABLE t (id INT PRIMARY KEY)", is_journaled=False)
    world.build(world.side, ())
    with other.connect() as reader, other.connect() as waiting, ThreadPoolExecutor(1) as thread:
        other.run("BEGIN", "SELECT * FROM used", connection=reader)
        other.run("SET SESSION lock_wait_timeout = 3", connection=waiting)
        dropped = thread.submit(other.run, "DROP TABLE first, used", connection=waiting)
        pid = waiting.thread_id()
        state = f"SELECT state FROM information_schema.processlist WHERE id = {pid}"
        while other.run(state) != [("Waiting for table metadata lock",)]:
            assert not dropped.done()
        LeftJournal(world.control, world.database, world.template, world.side)
        assert read_schema(world.control, world.database).tables.keys() == {"t"}
        assert find_reasons_against_undo(world.control, world.database) == {}
        assert not dropped.done()
        other.run("COMMIT", connection=reader)


def test_connections_at_once(shop: MySQLWorld) -> None:
    """Concurrent transactions write entries without waiting for each other."""
    start = shop.content()
    shop.journal.enter()

    def work(number: int) -> None:
        with connect(shop.socket, shop.database) as connection:
            for n in range(20):
                shop.run(
                    "BEGIN",
                    f"INSERT INTO customer (name) VALUES ('{number} {n}')",
                    f"UPDATE customer SET name = CONCAT(name, 'x') WHERE name = '{number} {n}'",
                    "COMMIT" if n % 3 else "ROLLBACK",
                    connection=connection,
                )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [changed] = shop.journal.rows_changed(limit=10)
    assert len(changed.added) == 10
    assert changed.more == 4 * 13 - 10
    shop.journal.leave()
    assert shop.content() == start


def test_a_restore_leaves_triggers_on_for_each_connection(shop: MySQLWorld) -> None:
    """A restore inserts rows with the triggers off. Those of other connections stay on.

    MySQL shares opened tables and their triggers among connections, in 16 caches. So 40 connections
    meet the table that the restore used. The statements move no counter: to restore a counter
    closes the table.
    """
    start = shop.content()
    for number in range(40):
        shop.journal.enter()
        with connect(shop.socket, shop.database) as connection:
            insert = f"INSERT INTO line VALUES (3, {number + 10}, 'd')"
            shop.run("DELETE FROM line WHERE n = 1", insert, connection=connection)
        shop.journal.leave()
        assert shop.content() == start, number


def test_changes_between_moments(shop: MySQLWorld) -> None:
    """Net changes from a moment to a moment, with those of cascades."""
    journal = shop.journal
    journal.enter()
    shop.run("UPDATE customer SET name = 'Eve' WHERE id = 2")
    first = journal.moment()
    shop.run("DELETE FROM customer WHERE id = 1", "INSERT INTO customer VALUES (1, 'New')")
    second = journal.moment()
    shop.run("UPDATE customer SET name = 'Bob' WHERE id = 2", "TRUNCATE visit")
    [until_first] = journal.rows_changed(until=first)
    assert until_first.table == "customer"
    assert until_first.key == ("id",)
    assert until_first.removed == ((2, "Bob"),)
    assert until_first.added == ((2, "Eve"),)
    between = {rows.table: rows for rows in journal.rows_changed(first, second)}
    assert between.keys() == {"customer", "orders", "line", "visit"}
    assert between["customer"].removed == ((1, "Ada"),)
    assert between["customer"].added == ((1, "New"),)
    assert {row[0] for row in between["orders"].removed} == {1, 2}
    after = {rows.table: rows for rows in journal.rows_changed(second)}
    assert after.keys() == {"customer", "visit"}
    assert after["customer"].added == ((2, "Bob"),)
    assert len(after["visit"].removed) == 3
    total = {rows.table: rows for rows in journal.rows_changed()}
    assert total["customer"].removed == ((1, "Ada"),)
    assert total["customer"].added == ((1, "New"),)
    journal.leave()
