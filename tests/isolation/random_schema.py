"""Random schemas for PostgreSQL, and statements that an app may execute on them.

All of it follows from a seed. Some statements fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

BEFORE = """
CREATE SCHEMA "S two";
CREATE TYPE mood AS ENUM ('so "so"', 'it''s, fine', 'Größe');
CREATE TYPE pair AS (a int, b text);
CREATE SEQUENCE held CACHE 5;
CREATE TABLE audit (what text, at int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.audit VALUES (TG_TABLE_NAME || TG_OP, 1); RETURN NULL; END $$;
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.n := coalesce(NEW.n, 0) + 1; RETURN NEW; END $$;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW.n = 3 THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE FUNCTION once_more() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF pg_trigger_depth() < 2 THEN EXECUTE format(
        'UPDATE %I.%I SET n = n + 10 WHERE n = 4', TG_TABLE_SCHEMA, TG_TABLE_NAME); END IF;
    RETURN NULL; END $$;
"""
VALUES: dict[str, tuple[str, ...]] = {
    "int": ("1", "2", "7", "-1"),
    "text": ("''", "'x'", "'X'", "'a\"b,(c'", "E'\\\\ \\t\\n'", "'NULL'"),
    "numeric": ("1.0", "1.00", "'NaN'", "2"),
    "float8": ("0.1", "'-0'", "0.3", "0.1::float8 + 0.2"),
    "timestamptz": ("'2026-01-01 00:00+00'", "'2026-01-01 05:30+05:30'", "'infinity'"),
    "date": ("'2026-02-03'", "'0044-03-15 BC'"),
    "interval": ("'1 mon'", "'30 days'", "'-1 year 2 days'"),
    "json": ("""'{"a": 1, "a":  2}'""", "'null'"),
    "jsonb": ("""'{"a": 1.10}'""", "'null'"),
    "bytea": ("'\\x00ff'", "''"),
    "mood": ("'so \"so\"'", "'Größe'"),
    "int[]": ("'[-1:0]={1,2}'", "'{}'", "'{1,NULL}'"),
    "point": ("'(0.1,2)'", "'(1,1)'"),
    "pair": ("ROW(1, 'x,')", "ROW(NULL, NULL)"),
    "bool": ("true", "false"),
    "money": ("'-1.5'", "'2'"),
    "char(3)": ("'a'", "''"),
    "int4range": ("'[1,5)'", "'empty'"),
}
NAMES = ("n", "j", "r", "select", "Größe", 'q"q', "a b")
# So that an app's triggers fire before ours, and after.
TRIGGERS = (
    ("note", "AFTER INSERT OR UPDATE OR DELETE ON {t} FOR EACH STATEMENT"),
    ("note", "AFTER UPDATE ON {t} FOR EACH ROW"),
    ("change", "BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW"),
    ("refuse", "BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW"),
    ("once_more", "AFTER INSERT OR UPDATE ON {t} FOR EACH ROW"),
    ("once_more", "AFTER INSERT ON {t} FOR EACH STATEMENT"),
)
HOSTILE = (
    "SET DateStyle = 'SQL, DMY'",
    "SET IntervalStyle = 'iso_8601'",
    "SET extra_float_digits = -5",
    "SET bytea_output = 'escape'",
    "SET TimeZone = 'Asia/Kolkata'",
    "SET search_path = 'S two', 'public'",
    "SET quote_all_identifiers = on",
    "RESET ALL",
)
ACTIONS = ("CASCADE", "SET NULL", "NO ACTION")
WORK = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "WITH", "MERGE")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass
class Table:
    """A table that statements may name, with what is needed to write some."""

    name: str
    columns: dict[str, str] = field(default_factory=dict)  # that a statement may give, by type
    key: tuple[str, ...] = ()
    is_target: bool = False  # of foreign keys
    is_partitioned: bool = False

    def some(self, chance: random.Random) -> dict[str, str]:
        return {name: self.value(name, chance) for name in self.columns if chance.random() < 0.8}

    def value(self, name: str, chance: random.Random) -> str:
        """A value for a column; keys meet often."""
        if name in self.key and self.columns[name] == "int":
            return str(chance.randint(1, 12))
        if chance.random() < 0.15:
            return "NULL"
        kind = self.columns[name]
        return f"({chance.choice(VALUES[kind])})::{kind}"

    def where(self, chance: random.Random) -> str:
        kinds = [name for name, kind in self.columns.items() if kind == "int"]
        if not kinds or chance.random() < 0.2:
            return "" if chance.random() < 0.3 else " WHERE ctid = '(0,1)'"
        column, number = quoted(chance.choice(kinds)), chance.randint(-1, 12)
        return f" WHERE {column} {chance.choice(('=', '>', '<', 'IS DISTINCT FROM'))} {number}"


class Schema:
    """Tables of all kinds, and what fills them."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.kinds = list(VALUES)  # without xml: tables with it have no journal, but a mark
        self.tables = [Table("audit", {"what": "text", "at": "int"})]
        self.sequences = ["tickets", "held"]
        self.settings = [*HOSTILE, "SET session_replication_role = replica"]
        makers: tuple[Callable[[str], Iterator[str]], ...] = (
            *(self._single, self._single, self._single, self._single),
            *(self._partitioned, self._partitioned, self._inherited, self._bare),
        )
        self.statements = [BEFORE]
        for number in range(chance.randint(5, 8)):
            self.statements += chance.choice(makers)(self._name(number))
        self.statements += self._triggers()
        self.statements += self._rights()
        self.statements += [self.statement() for _ in range(chance.randint(5, 40))]

    def _name(self, number: int) -> str:
        plain = f"{self.chance.choice(('t', 'T ', 'ü'))}{number}"
        return f'"S two".{quoted(plain)}' if self.chance.random() < 0.2 else quoted(plain)

    def _columns(self, *, least: int = 0) -> dict[str, str]:
        """Random ones; ``n`` is always there, for triggers and conditions."""
        names = self.chance.sample(NAMES[1:], self.chance.randint(least, 4))
        return {"n": "int"} | {name: self.chance.choice(self.kinds) for name in names}

    # Kinds of tables: each writes the statements that make one, and adds it

    def _single(self, name: str) -> Iterator[str]:
        columns, extra = self._columns(), list[str]()
        key: tuple[str, ...] = ()
        kind = self.chance.choice(
            ("none", "serial", "always", "default", "two", "text", "unique", "deferred", "twin")
        )
        made = [f"{quoted(one)} {what}" for one, what in columns.items()]
        if kind in {"serial", "always", "default"}:
            identity = f"int GENERATED {kind.upper()} AS IDENTITY"
            if kind == "default":
                identity = "int GENERATED BY DEFAULT AS IDENTITY"
            made.insert(0, f"id {'serial' if kind == 'serial' else identity} PRIMARY KEY")
            key = ("id",)
        elif kind == "two":
            made += ["k1 int", "k2 int", "PRIMARY KEY (k2, k1)"]
            key = ("k1", "k2")
        elif kind == "text":
            made += ["k text", "PRIMARY KEY (k)"]
            extra, key = ["k"], ("k",)
        elif kind in {"unique", "deferred"}:
            how = "DEFERRABLE INITIALLY DEFERRED" if kind == "deferred" else ""
            if kind == "deferred":  # PostgreSQL does not check the key for a replica
                self.settings = [*HOSTILE]
            made += ["k1 int NOT NULL", f"UNIQUE (k1) {how}"]
            key = ("k1",)
        elif kind == "twin":
            made.append("g int GENERATED ALWAYS AS (n * 2) STORED")
        ours = {one: "text" if one in extra else "int" for one in key}
        made += self._references(ours)
        if self.chance.random() < 0.3:
            made.insert(1, "gone int")
        is_unlogged = self.chance.random() < 0.1 and kind in {"none", "twin"}
        yield f"CREATE {'UNLOGGED ' if is_unlogged else ''}TABLE {name} ({', '.join(made)})"
        if "gone int" in made:
            yield f"ALTER TABLE {name} DROP gone"
        self.tables.append(
            Table(
                name,
                ours | columns,
                key,
                is_target=kind in {"serial", "always", "default", "unique"},
            )
        )

    def _references(self, ours: dict[str, str]) -> Iterator[str]:
        """A foreign key to a table that is there, or to the table itself."""
        targets = [one for one in self.tables if one.is_target]
        if not targets or not ours or self.chance.random() < 0.4:
            return
        target, (on_delete, on_update) = (
            self.chance.choice(targets),
            self.chance.choices(ACTIONS, k=2),
        )
        how = self.chance.choice(("", "DEFERRABLE INITIALLY DEFERRED"))
        column = "to_" + target.key[0]
        ours[column] = "int"
        yield (
            f"{column} int REFERENCES {target.name} ({target.key[0]}) "
            f"ON DELETE {on_delete} ON UPDATE {on_update} {how}"
        )

    def _partitioned(self, name: str) -> Iterator[str]:
        columns = self._columns(least=1)
        has_key = self.chance.random() < 0.5
        made = [f"{quoted(one)} {what}" for one, what in columns.items()]
        made.insert(1, "k int" + (" PRIMARY KEY" if has_key else ""))
        yield f"CREATE TABLE {name} ({', '.join(made)}) PARTITION BY RANGE (k)"
        low, odd, rest, deep = (name[:-1] + part + '"' for part in ("_l", "_o", "_r", "_d"))
        yield f"CREATE TABLE {low} PARTITION OF {name} FOR VALUES FROM (0) TO (4)"
        yield f"CREATE TABLE {odd} (gone int, {', '.join(reversed(made))})"
        yield f"ALTER TABLE {odd} DROP gone"
        yield f"ALTER TABLE {name} ATTACH PARTITION {odd} FOR VALUES FROM (4) TO (8)"
        yield f"CREATE TABLE {rest} PARTITION OF {name} DEFAULT PARTITION BY LIST (k)"
        yield f"CREATE TABLE {deep} PARTITION OF {rest} DEFAULT"
        key = ("k",) if has_key else ()
        for one in (name, name, odd, rest, deep):
            self.tables.append(Table(one, {"k": "int"} | columns, key, is_partitioned=True))

    def _inherited(self, name: str) -> Iterator[str]:
        columns, more = self._columns(), self.chance.choice(self.kinds)
        made = ", ".join(f"{quoted(one)} {what}" for one, what in columns.items())
        child, grandchild = (name[:-1] + part + '"' for part in ("_c", "_g"))
        yield f"CREATE TABLE {name} ({made})"
        yield f"CREATE TABLE {child} (v {more}) INHERITS ({name})"
        yield f"CREATE TABLE {grandchild} (w int) INHERITS ({child})"
        self.tables.append(Table(name, columns))
        self.tables.append(Table(f"ONLY {name}", columns))
        self.tables.append(Table(child, columns | {"v": more}))
        self.tables.append(Table(grandchild, columns | {"v": more, "w": "int"}))

    def _bare(self, name: str) -> Iterator[str]:
        yield f"CREATE TABLE {name} ()"
        self.tables.append(Table(name))

    def _triggers(self) -> Iterator[str]:
        for number, table in enumerate(self.tables[1:]):
            if "n" not in table.columns or table.name.startswith("ONLY") or self._rarely(0.6):
                continue
            function, event = self.chance.choice(TRIGGERS)
            if "AFTER" in event and "ROW" not in event and self._rarely(0.5):
                event = event.replace("STATEMENT", "ROW")
            name = self.chance.choice(("!!first", "last"))
            yield (
                f'CREATE TRIGGER "{name}{number}" {event.format(t=table.name)} '
                f"EXECUTE FUNCTION {function}()"
            )

    def _rights(self) -> Iterator[str]:
        """An app's role that owns nothing, and cannot see all rows of some tables."""
        for schema in ("public", '"S two"'):
            yield f"GRANT USAGE ON SCHEMA {schema} TO {{role}}"
            yield f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {{role}}"
            yield f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {{role}}"
        for table in self.tables[1:]:
            if "n" in table.columns and not table.name.startswith("ONLY") and self._rarely(0.15):
                yield f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY"
                yield f"ALTER TABLE {table.name} FORCE ROW LEVEL SECURITY"
                yield f"DROP POLICY IF EXISTS p ON {table.name}"
                yield f"CREATE POLICY p ON {table.name} USING (n IS NULL OR n < 5)"

    def _rarely(self, how_often: float) -> bool:
        return self.chance.random() < how_often

    # Statements

    def statement(self) -> str:
        table = self.chance.choice(self.tables)
        write = self.chance.choices(
            (
                *(self._insert, self._many, self._upsert, self._update, self._shift, self._delete),
                *(self._truncate, self._cte, self._merge, self._join, self._sequence),
            ),
            (10, 4, 4, 10, 3, 6, 2, 2, 2, 2, 3),
        )[0]
        return write(table)

    def _insert(self, table: Table) -> str:
        values = table.some(self.chance)
        into = table.name.removeprefix("ONLY ")
        if not values:
            return f"INSERT INTO {into} DEFAULT VALUES"
        names = ", ".join(map(quoted, values))
        more = self.chance.randint(1, 3)
        rows = [", ".join(table.value(name, self.chance) for name in values) for _ in range(more)]
        override = " OVERRIDING SYSTEM VALUE" if "id" in values else ""
        return (
            f"INSERT INTO {into} ({names}){override} VALUES {', '.join(f'({row})' for row in rows)}"
        )

    def _many(self, table: Table) -> str:
        if "n" not in table.columns:
            return self._insert(table)
        names = [quoted(one) for one in (*table.key, "n") if one != "id"]
        low = self.chance.randint(5, 40)
        return (
            f"INSERT INTO {table.name.removeprefix('ONLY ')} ({', '.join(names)}) "
            f"SELECT {', '.join('g' for _ in names)} FROM generate_series({low}, {low + 30}) g"
        )

    def _upsert(self, table: Table) -> str:
        target, column = ", ".join(map(quoted, table.key)), quoted("n")
        what = self.chance.choice((f"DO UPDATE SET {column} = excluded.{column}", "DO NOTHING"))
        if not table.key:
            what, target = "DO NOTHING", ""
        return f"{self._insert(table)} ON CONFLICT {f'({target})' if target else ''} {what}"

    def _update(self, table: Table) -> str:
        values = {one: value for one, value in table.some(self.chance).items() if one != "id"}
        if not values:
            return self._delete(table)
        sets = ", ".join(f"{quoted(name)} = {value}" for name, value in values.items())
        return f"UPDATE {table.name} SET {sets}{table.where(self.chance)}"

    def _shift(self, table: Table) -> str:
        """All keys move at once."""
        kinds = [one for one, kind in table.columns.items() if kind == "int" and one != "id"]
        if not kinds:
            return self._update(table)
        name = quoted(self.chance.choice(kinds))
        return f"UPDATE {table.name} SET {name} = {name} + {self.chance.choice((1, -1, 3))}"

    def _delete(self, table: Table) -> str:
        return f"DELETE FROM {table.name}{table.where(self.chance)}"

    def _truncate(self, table: Table) -> str:
        how = self.chance.choice(("", " RESTART IDENTITY", " CASCADE", " RESTART IDENTITY CASCADE"))
        return f"TRUNCATE {table.name}{how}"

    def _cte(self, table: Table) -> str:
        other = self.chance.choice(self.tables)
        return f"WITH w AS ({self._delete(other)} RETURNING 1) {self._insert(table)}"

    def _merge(self, table: Table) -> str:
        name = table.key[0] if len(table.key) == 1 else "k"
        if "n" not in table.columns or table.columns.get(name) != "int":
            return self._delete(table)
        key = quoted(name)
        low = self.chance.randint(1, 9)
        deletes = "WHEN MATCHED AND g % 2 = 0 THEN DELETE "
        inserts = f"WHEN NOT MATCHED THEN INSERT ({key}, n) VALUES (g, 6)"
        update = "n = g"
        if table.is_partitioned and self._rarely(0.7):
            update = f"{key} = g + 4"  # to another partition
            deletes = self.chance.choice(("", deletes))
            inserts = self.chance.choice(("", inserts))
        return (
            f"MERGE INTO {table.name} m USING generate_series({low}, {low + 4}) g ON m.{key} = g "
            f"{deletes}WHEN MATCHED THEN UPDATE SET {update} {inserts}"
        )

    def _join(self, table: Table) -> str:
        if "n" not in table.columns:
            return self._insert(table)
        return f"UPDATE {table.name} AS u SET n = x.at FROM audit x WHERE x.at = u.n OR u.n IS NULL"

    def _sequence(self, _: Table) -> str:
        name, number = self.chance.choice(self.sequences), self.chance.randint(1, 50)
        return self.chance.choice(
            (
                f"SELECT nextval('public.{name}')",
                f"SELECT nextval('public.{name}')",
                f"SELECT setval('public.{name}', {number})",
                f"SELECT setval('public.{name}', 1, false)",
                f"SELECT nextval('public.{name}') FROM generate_series(1, 9)",
            )
        )
