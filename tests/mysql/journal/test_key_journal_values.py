"""Hostile values of each type are restored, as values and as keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql.journal._schema_facts import find_reasons_against_undo

if TYPE_CHECKING:
    from tests.mysql.journal.world import MySQLWorld

pytestmark = pytest.mark.slow

# Each type with values that a text, a driver or a time zone might change.
_TYPES = {
    "TINYINT": ("-128", "127", "0"),
    "BIGINT UNSIGNED": ("18446744073709551615", "0", "9007199254740993"),
    "DECIMAL(65,30)": (
        "99999999999999999999999999999999999.999999999999999999999999999999",
        "-0.1",
    ),
    "FLOAT": ("0.1", "3.4028234e38", "1.1754944e-38", "16777217"),
    "DOUBLE": ("0.1", "1.7976931348623157e308", "2.2250738585072014e-308", "-0e0"),
    "BIT(9)": ("b'100000001'", "b'0'", "b'101111'"),
    "BIT(64)": ("~0", "1", "0x2700"),
    "DATE": ("'0000-00-00'", "'2024-00-31'", "'9999-12-31'", "'1000-01-01'"),
    "DATETIME(6)": ("'0000-00-00'", "'9999-12-31 23:59:59.999999'", "'2026-03-29 02:30:00.1'"),
    "TIMESTAMP(6) NULL": ("'1970-01-01 12:00:01'", "'2026-10-25 02:30:00.5'", "'0000-00-00'"),
    "TIME(6)": ("'-838:59:59'", "'838:59:59.000001'", "'00:00:00.000001'"),
    "YEAR": ("'0000'", "1901", "2155"),
    "CHAR(10)": ("'a'", "'a '", "''", "'A'", "'ä'", "'\\\\'", "'\\n'", "'😀'"),
    "VARCHAR(20)": ("'a'", "'a '", "' a'", "'Á'", "'ﬃ'", "'😀'", "'\\0'", "'%s'", "'\\'`\"'"),
    "VARCHAR(20) CHARACTER SET latin1": ("'ä'", "'ß'", "'ss'", "'€'"),
    "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin": ("'a'", "'a '", "'A'"),
    "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_nopad_ci": ("'a'", "'a '", "'ß'"),
    "VARCHAR(20) CHARACTER SET ucs2": ("'ä'", "'語'"),
    "BINARY(4)": ("'a'", "'a\\0'", "x'ff00ff00'", "''"),
    "VARBINARY(20)": ("'a'", "'a\\0'", "x'ff00fe'", "''"),
    "TEXT": ("REPEAT('ä ', 20000)", "'a '", "''"),
    "LONGBLOB": ("REPEAT(x'00ff27', 200000)", "x'00'", "''"),
    "JSON": ('\'{"b": 1, "a": [1.0, 1e2, "\\\\\\\\u00e4"]}\'', "'null'", "'[]'"),
    "ENUM('a','c','b')": ("'b'", "'a'", "0"),
    "SET('x','y','z')": ("'x,z'", "''", "7"),
    "GEOMETRY": ("POINT(1e-300, -0.1)", "ST_GeomFromText('LINESTRING(0 0, 1 1)', 4326)"),
    "UUID": ("'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'"),
    "INET6": ("'2001:db8::ff00:42:8329'", "'::'"),
}
_OF_MARIADB = ("UUID", "INET6")
_NO_KEYS = ("TEXT", "LONGBLOB", "JSON", "GEOMETRY")


def skip_unless_known(worlds: type[MySQLWorld], kind: str) -> None:
    """Skip a type that the server does not have."""
    if kind in _OF_MARIADB and not worlds.has_type(kind):
        pytest.skip("the server does not have this type")


def assert_restored(world: MySQLWorld, *statements: str) -> None:
    """Change rows in a level, and check that leaving it restores them."""
    before = world.content()
    world.journal.enter()
    world.run("SET sql_mode = 'NO_ENGINE_SUBSTITUTION', time_zone = 'SYSTEM'", *statements)
    assert world.content() != before
    assert not world.journal.is_untouched()
    assert world.journal.leave()
    assert world.content() == before
    assert world.journal.is_untouched()


@pytest.mark.parametrize("kind", _TYPES)
def test_values_are_restored(worlds: type[MySQLWorld], kind: str) -> None:
    """Updated and deleted rows have the same values again, with and without a key."""
    skip_unless_known(worlds, kind)
    values = ", ".join(f"({n}, {value})" for n, value in enumerate(_TYPES[kind]))
    world = worlds(
        f"CREATE TABLE keyed (id INT PRIMARY KEY, v {kind})",
        f"CREATE TABLE plain (id INT, v {kind})",
        f"INSERT INTO keyed VALUES {values}, (100, NULL)",
        "INSERT INTO plain SELECT * FROM keyed",
        "INSERT INTO plain SELECT * FROM keyed",
    )
    assert_restored(world, "UPDATE keyed SET v = NULL", "UPDATE plain SET v = NULL")
    assert_restored(world, "DELETE FROM keyed", "DELETE FROM plain LIMIT 3")
    first = _TYPES[kind][0]
    assert_restored(
        world, f"UPDATE keyed SET v = {first}", f"INSERT INTO plain VALUES (1, {first})"
    )


@pytest.mark.parametrize("kind", [kind for kind in _TYPES if kind not in _NO_KEYS])
def test_keys_are_restored(worlds: type[MySQLWorld], kind: str) -> None:
    """Rows whose keys were changed, deleted and inserted again have their values again."""
    skip_unless_known(worlds, kind)
    values = dict.fromkeys(_TYPES[kind])
    # Without a default, MariaDB 10.6 would change the key with each UPDATE.
    kind = kind.replace(" NULL", " DEFAULT '2001-01-01'")
    world = worlds(
        f"CREATE TABLE t (k {kind}, v INT, PRIMARY KEY (k))",
        *(f"INSERT IGNORE INTO t VALUES ({value}, {n})" for n, value in enumerate(values)),
    )
    assert_restored(world, "UPDATE t SET v = v + 10")
    assert_restored(world, "DELETE FROM t ORDER BY v LIMIT 2")
    [first, *_] = values
    assert_restored(
        world, "DELETE FROM t", f"INSERT INTO t VALUES ({first}, 99)", "UPDATE t SET v = 98"
    )


def test_keys_of_several_columns(worlds: type[MySQLWorld]) -> None:
    """A composite key, a unique index in place of a key, and an index that is no key."""
    world = worlds(
        "CREATE TABLE composite (b VARCHAR(9) CHARACTER SET latin1, a INT UNSIGNED, v INT, "
        "PRIMARY KEY (a, b))",
        "CREATE TABLE uniq (n INT, u CHAR(4) NOT NULL, v INT, UNIQUE (n), UNIQUE (u))",
        "CREATE TABLE prefix (t TEXT NOT NULL, v INT, PRIMARY KEY (t(3)))",
        "CREATE TABLE nullable (n INT, v INT, UNIQUE (n))",
        "INSERT INTO composite VALUES ('ä', 1, 1), ('a', 2, 1), ('ä', 2, 2)",
        "INSERT INTO uniq VALUES (NULL, 'a', 1), (NULL, 'b', 2), (1, 'c', 3)",
        "INSERT INTO prefix VALUES ('abc1', 1), ('abd2', 2)",
        "INSERT INTO nullable VALUES (NULL, 1), (NULL, 1), (1, 1)",
    )
    assert_restored(
        world,
        "UPDATE composite SET a = a + 1, b = 'x' WHERE b = 'ä'",
        "UPDATE uniq SET u = CONCAT(u, 'z'), v = 4",
        "UPDATE prefix SET t = 'zzz' WHERE v = 1",
        "UPDATE nullable SET n = 7, v = 2 LIMIT 1",
    )


def test_columns_that_are_not_written(worlds: type[MySQLWorld]) -> None:
    """Generated columns are computed again, invisible columns and defaults are restored."""
    world = worlds(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT, s INT AS (a * 2) STORED, "
        "v INT AS (a * 3) VIRTUAL, h INT INVISIBLE DEFAULT 5, UNIQUE (v), "
        "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)",
        "INSERT INTO t (a, h) VALUES (1, 6), (2, 7), (3, NULL)",
    )
    assert_restored(world, "UPDATE t SET a = a + 10, h = 8")
    assert_restored(world, "DELETE FROM t WHERE a = 2", "INSERT INTO t (a) VALUES (9)")


def test_a_row_with_the_number_zero(worlds: type[MySQLWorld]) -> None:
    """An AUTO_INCREMENT of 0 is restored as 0, and a row that a check forbids as well.

    A row that a check forbids does not exist on MySQL.
    """
    off = ", check_constraint_checks = 0" if worlds.is_mariadb() else ""
    forbidden = 99 if worlds.is_mariadb() else 9
    world = worlds(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v INT CHECK (v < 10))",
        f"SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'{off}",
        f"INSERT INTO t VALUES (0, 1), (-5, {forbidden}), (7, 2)",
    )
    assert_restored(world, "UPDATE t SET v = 3", "DELETE FROM t WHERE id = 0")


def test_names(worlds: type[MySQLWorld]) -> None:
    """Names that must be quoted, or that InnoDB encodes."""
    world = worlds(
        "CREATE TABLE `sel``ect %s 'ä' \"語` (`a``b %d` INT AUTO_INCREMENT PRIMARY KEY, `key` INT)",
        "CREATE TABLE `a.b/c#P#d` (`order` VARCHAR(9) PRIMARY KEY, `é` INT) "
        "PARTITION BY KEY (`order`) PARTITIONS 3",
        "INSERT INTO `sel``ect %s 'ä' \"語` VALUES (3, 1), (4, 2)",
        "INSERT INTO `a.b/c#P#d` VALUES ('a', 1), ('b', 2), ('c', 3)",
    )
    assert_restored(
        world,
        "UPDATE `sel``ect %s 'ä' \"語` SET `key` = 9",
        "INSERT INTO `sel``ect %s 'ä' \"語` VALUES ()",
        "UPDATE `a.b/c#P#d` SET `order` = CONCAT(`order`, 'z')",
    )
    assert_restored(world, "TRUNCATE `a.b/c#P#d`", "TRUNCATE `sel``ect %s 'ä' \"語`")
    assert_restored(world, "ALTER TABLE `a.b/c#P#d` TRUNCATE PARTITION p0, p1, p2")


def test_counters_of_partitions(worlds: type[MySQLWorld]) -> None:
    """A partitioned table counts for all its partitions."""
    world = worlds(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v INT) "
        "PARTITION BY HASH (id) PARTITIONS 3",
        "INSERT INTO t (v) VALUES (1), (2), (3), (4)",
    )
    assert_restored(world, "INSERT INTO t (v) VALUES (5), (6)")
    world.run("INSERT INTO t (v) VALUES (0)")
    assert world.run("SELECT MAX(id) FROM t") == [(5,)]


def test_large_counters(worlds: type[MySQLWorld]) -> None:
    """An app may compute ids above 2^53. A DOUBLE rounds such numbers."""
    world = worlds(
        "CREATE TABLE t (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, v INT)",
        "INSERT INTO t VALUES (9223372036854775806, 1)",
    )
    assert_restored(world, "INSERT INTO t (v) VALUES (2)")
    world.run("INSERT INTO t (v) VALUES (3)")
    assert world.run("SELECT MAX(id) FROM t") == [(9223372036854775807,)]


def test_what_cannot_be_restored_is_named(worlds: type[MySQLWorld]) -> None:
    """Tables of other engines, sequences, versions, and foreign keys to another database."""
    of_mariadb = {
        "old": "CREATE TABLE old (id INT) WITH SYSTEM VERSIONING",
        "seq": "CREATE SEQUENCE seq",
    }
    of_one_server = of_mariadb
    if not worlds.is_mariadb():
        shared = "CREATE TABLE shared (id INT) TABLESPACE = innodb_system"
        of_one_server = {"shared": shared}
    world = worlds(
        "CREATE TABLE fine (id INT PRIMARY KEY)",
        "CREATE TABLE my (id INT) ENGINE = MyISAM",
        "CREATE TABLE mem (id INT) ENGINE = MEMORY",
        *of_one_server.values(),
        "CREATE VIEW v AS SELECT * FROM fine",
        is_journaled=False,
    )
    world.run(
        f"CREATE TABLE away (id INT, FOREIGN KEY (id) REFERENCES `{world.template}`.fine (id))"
    )
    reasons = find_reasons_against_undo(world.control, world.database)
    assert reasons.keys() == {"my", "mem", *of_one_server, "away"}
    assert reasons["my"] == "the engine MyISAM has no transactions"
    assert world.template in reasons["away"]
    assert find_reasons_against_undo(world.control, world.template).keys() == {
        "my",
        "mem",
        *of_one_server,
    }
