"""Hostile values of each type are restored, as values and as keys."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_arena.errors import TemplateError
from tests.mysql.level_world import LevelWorld, made_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._mysql._server_registry import MySQLRegistry


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
_NOPAD = "utf8mb4_unicode_nopad_ci"


def is_mariadb(own: MySQLRegistry) -> bool:
    return own.control.rows("SELECT VERSION() LIKE '%MariaDB%'") == [(1,)]


@contextmanager
def world_of(own: MySQLRegistry, *script: str) -> Iterator[LevelWorld]:
    lines = ["SET sql_mode = 'NO_ENGINE_SUBSTITUTION'", *script]
    if not is_mariadb(own):
        lines = [line.replace(_NOPAD, "utf8mb4_0900_ai_ci") for line in lines]
    with closing(LevelWorld(own, made_template(own, *lines), "undo")) as world:
        yield world


def contents(world: LevelWorld) -> dict[str, list[str]]:
    """Return all rows of all tables as the server sends them, their checksums and counters."""
    found = {}
    with world.open(conv={}, use_unicode=False) as raw:
        cursor = raw.cursor()
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(
            "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES "
            "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE'"
        )
        for name, counter in cursor.fetchall():
            quoted = "`" + name.decode().replace("`", "``") + "`"
            cursor.execute(f"SELECT * FROM {quoted}")
            rows = sorted(map(repr, cursor.fetchall()))
            cursor.execute(f"CHECKSUM TABLE {quoted}")
            [(_, checksum)] = cursor.fetchall()
            found[quoted] = [*rows, f"checksum {checksum}", f"counter {counter}"]
    return found


def assert_restored(world: LevelWorld, *statements: str, by_a_copy: bool = False) -> None:
    """Change rows in a level, and check that leaving it restores them."""
    before = contents(world)
    generation = world.isolation.generation
    world.isolation.enter()
    hand = world.connect()
    for statement in ("SET sql_mode = 'NO_ENGINE_SUBSTITUTION', time_zone = 'SYSTEM'", *statements):
        hand.execute(statement)
    assert contents(world) != before
    assert world.isolation.leave()
    assert contents(world) == before
    assert (world.isolation.generation != generation) == by_a_copy, world.lines


def test_values(own: MySQLRegistry) -> None:
    """Updated, deleted and inserted rows have the same values again, also as keys."""
    script = []
    levels: list[list[str]] = [[], [], []]
    for n, (kind, values) in enumerate(_TYPES.items()):
        if kind in _OF_MARIADB and not is_mariadb(own):
            continue
        rows = ", ".join(f"({i}, {value})" for i, value in enumerate(values))
        script += [
            f"CREATE TABLE keyed{n} (id INT PRIMARY KEY, v {kind})",
            f"INSERT INTO keyed{n} VALUES {rows}, (100, NULL)",
            f"CREATE TABLE plain{n} (id INT, v {kind})",
            f"INSERT INTO plain{n} SELECT * FROM keyed{n}",
            f"INSERT INTO plain{n} SELECT * FROM keyed{n}",
        ]
        levels[0] += [f"UPDATE keyed{n} SET v = NULL", f"UPDATE plain{n} SET v = NULL"]
        levels[1] += [f"DELETE FROM keyed{n}", f"DELETE FROM plain{n} LIMIT 3"]
        levels[2] += [
            f"UPDATE keyed{n} SET v = {values[0]}",
            f"INSERT INTO plain{n} VALUES (1, {values[0]})",
        ]
        if kind in _NO_KEYS:
            continue
        # Without a default, MariaDB 10.6 would change the key with each UPDATE.
        kind_of_key = kind.replace(" NULL", " DEFAULT '2001-01-01'")
        script.append(f"CREATE TABLE k{n} (k {kind_of_key}, v INT, PRIMARY KEY (k))")
        script += [
            f"INSERT IGNORE INTO k{n} VALUES ({value}, {i})" for i, value in enumerate(values)
        ]
        levels[0].append(f"UPDATE k{n} SET v = v + 10")
        levels[1].append(f"DELETE FROM k{n} ORDER BY v LIMIT 2")
        levels[2] += [f"DELETE FROM k{n}", f"INSERT INTO k{n} VALUES ({values[0]}, 99)"]
    with world_of(own, *script) as world:
        for statements in levels:
            assert_restored(world, *statements)
        world.isolation.enter()
        world.connect().execute(f"UPDATE keyed{[*_TYPES].index('FLOAT')} SET v = 0.2 WHERE id = 0")
        [changed] = world.isolation.rows_changed()
        assert [*changed.removed, *changed.added] == [(0, 0.1), (0, 0.2)]


def test_keys_of_several_columns(own: MySQLRegistry) -> None:
    """A composite key, a unique index in place of a key, and an index that is no key."""
    with world_of(
        own,
        "CREATE TABLE composite (b VARCHAR(9) CHARACTER SET latin1, a INT UNSIGNED, v INT, "
        "PRIMARY KEY (a, b))",
        "CREATE TABLE uniq (n INT, u CHAR(4) NOT NULL, v INT, UNIQUE (n), UNIQUE (u))",
        "CREATE TABLE prefix (t TEXT NOT NULL, v INT, PRIMARY KEY (t(3)))",
        "CREATE TABLE nullable (n INT, v INT, UNIQUE (n))",
        "INSERT INTO composite VALUES ('ä', 1, 1), ('a', 2, 1), ('ä', 2, 2)",
        "INSERT INTO uniq VALUES (NULL, 'a', 1), (NULL, 'b', 2), (1, 'c', 3)",
        "INSERT INTO prefix VALUES ('abc1', 1), ('abd2', 2)",
        "INSERT INTO nullable VALUES (NULL, 1), (NULL, 1), (1, 1)",
    ) as world:
        assert_restored(
            world,
            "UPDATE composite SET a = a + 1, b = 'x' WHERE b = 'ä'",
            "UPDATE uniq SET u = CONCAT(u, 'z'), v = 4",
            "UPDATE prefix SET t = 'zzz' WHERE v = 1",
            "UPDATE nullable SET n = 7, v = 2 LIMIT 1",
        )


def test_columns_that_are_not_written(own: MySQLRegistry) -> None:
    """Generated columns are computed again, invisible columns and defaults are restored."""
    with world_of(
        own,
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT, s INT AS (a * 2) STORED, "
        "v INT AS (a * 3) VIRTUAL, h INT INVISIBLE DEFAULT 5, UNIQUE (v), "
        "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)",
        "INSERT INTO t (a, h) VALUES (1, 6), (2, 7), (3, NULL)",
    ) as world:
        assert_restored(world, "UPDATE t SET a = a + 10, h = 8")
        assert_restored(world, "DELETE FROM t WHERE a = 2", "INSERT INTO t (a) VALUES (9)")


def test_a_row_with_the_number_zero(own: MySQLRegistry) -> None:
    """An AUTO_INCREMENT of 0 is restored as 0, and a row that a check forbids as well."""
    with world_of(
        own,
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v INT CHECK (v < 10))",
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO' /*M! , check_constraint_checks = 0 */",
        "INSERT INTO t VALUES (0, 1), (-5, 9 /*M! + 90 */), (7, 2)",
    ) as world:
        assert_restored(world, "UPDATE t SET v = 3", "DELETE FROM t WHERE id = 0")


def test_names(own: MySQLRegistry) -> None:
    """Names that must be quoted, or that InnoDB encodes."""
    with world_of(
        own,
        "CREATE TABLE `sel``ect %s 'ä' \"語` (`a``b %d` INT AUTO_INCREMENT PRIMARY KEY, `key` INT)",
        "CREATE TABLE `a.b/c#P#d` (`order` VARCHAR(9) PRIMARY KEY, `é` INT) "
        "PARTITION BY KEY (`order`) PARTITIONS 3",
        "INSERT INTO `sel``ect %s 'ä' \"語` VALUES (3, 1), (4, 2)",
        "INSERT INTO `a.b/c#P#d` VALUES ('a', 1), ('b', 2), ('c', 3)",
    ) as world:
        assert_restored(
            world,
            "UPDATE `sel``ect %s 'ä' \"語` SET `key` = 9",
            "INSERT INTO `sel``ect %s 'ä' \"語` VALUES ()",
            "UPDATE `a.b/c#P#d` SET `order` = CONCAT(`order`, 'z')",
        )
        assert_restored(world, "TRUNCATE `a.b/c#P#d`", "TRUNCATE `sel``ect %s 'ä' \"語`")
        assert_restored(
            world, "ALTER TABLE `a.b/c#P#d` TRUNCATE PARTITION p0, p1, p2", by_a_copy=True
        )


@pytest.mark.parametrize(
    "statement, name",
    [
        ("CREATE PROCEDURE p() SELECT 1", "PROCEDURE: p"),
        ("CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @a = 1", "TRIGGER: g"),
        ("/*M! CREATE SEQUENCE seq */", "SEQUENCE: seq"),
    ],
)
def test_what_is_not_copied_is_refused(own: MySQLRegistry, statement: str, name: str) -> None:
    if "M!" in statement and not is_mariadb(own):
        pytest.skip("MySQL has no sequences")
    with pytest.raises(TemplateError, match=name):
        made_template(own, "CREATE TABLE t (id INT)", statement)
