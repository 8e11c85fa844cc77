"""The process that `bench.mysql` asks: it has a database for each way to restore one."""

from __future__ import annotations

import os
import random
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from bench.server_mysql import connect, databases
from bench.suite import shop
from bench.work import CountedUses, around
from bench.worker import serve
from pytest_arena._mysql._mysql_isolation import MySQLIsolation
from pytest_arena._mysql._templates import url_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._mysql._server_registry import MySQLRegistry

    Taker = Callable[[int], list[float]]

NAMES = [table.name for table in shop.every_table]
SEEDED = shop.ROWS // shop.TABLES
_serials = count()


def main() -> None:
    """Create the databases, and answer."""
    dirties = [int(number) for number in os.environ["BENCH_DIRTIES"].split()]
    with databases() as (own, server):
        template = own.create("live")
        fill(own, template)
        ways = {
            "undo": undone(own, template),
            "rollback": rolled_back(own, template),
            "delete": emptied(own, template, "DELETE FROM"),
            "truncate": emptied(own, template, "TRUNCATE"),
            "clone": cloned(own, template),
            "recipe": created(own, template),
        }
        takers: dict[str, Taker] = {}
        for way, taker in ways.items():
            for dirty in dirties:
                takers[f"{way}-{dirty}"] = taker(dirty)
        serve(takers, {"server": lambda: server})


def fill(own: MySQLRegistry, name: str) -> None:
    """Create the tables and the seeded rows."""
    engine = create_engine(url_of(own.address_of(name), "mysql", "pymysql"))
    shop.Base.metadata.create_all(engine)
    with Session(engine) as session:
        shop.seed(session)
        session.commit()
    engine.dispose()


def write(app: Any, dirty: int) -> None:
    """Change rows in so many random tables, in one transaction. Read if that is 0."""
    with app.cursor() as cursor:
        cursor.execute("BEGIN")
        for table in random.sample(NAMES, dirty):
            for _ in range(2):
                name = f"dirty {next(_serials)}"
                cursor.execute(f"INSERT INTO {table} (name, price) VALUES (%s, 1)", [name])
            updated, deleted = random.sample(range(1, SEEDED + 1), 2)
            cursor.execute(f"UPDATE {table} SET price = price + 1 WHERE id = %s", [updated])
            cursor.execute(f"DELETE FROM {table} WHERE id = %s", [deleted])
        if not dirty:
            cursor.execute(f"SELECT COUNT(*) FROM {NAMES[0]}")
        cursor.execute("COMMIT")


def run(connection: Any, sql: str) -> None:
    """Execute statements in one round trip."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        while cursor.nextset():
            pass


def undone(own: MySQLRegistry, template: str) -> Callable[[int], Taker]:
    """Restore by `undo`, as pytest-arena does. The bench notes the writes as the gate does."""
    uses = CountedUses()
    isolation = MySQLIsolation(own, template, "undo", uses=uses, note=print, may_clone=False)
    app = connect(isolation.address)
    generation = isolation.generation

    def test(dirty: int) -> None:
        uses.number += 1
        write(app, dirty)
        if dirty:
            isolation.note_statement("INSERT INTO items VALUES ()", (0, generation))

    def leave() -> None:
        isolation.leave()
        assert isolation.generation == generation, "the database was replaced"

    isolation.enter()
    test(len(NAMES))
    leave()
    for name in NAMES:
        with app.cursor() as cursor:
            cursor.execute(f"SELECT COUNT(*), COALESCE(SUM(price), 0) FROM {name}")
            rows = cursor.fetchone()
        assert rows == (SEEDED, sum(range(SEEDED))), f"{name} was not restored: {rows}"
    return lambda dirty: around(isolation.enter, partial(test, dirty), leave)


def rolled_back(own: MySQLRegistry, template: str) -> Callable[[int], Taker]:
    """Roll back one transaction around a test. It has savepoints in place of transactions."""
    app = connect(own.address_of(own.create("live", template=template)))

    def test(dirty: int) -> None:
        with app.cursor() as cursor:
            cursor.execute("SAVEPOINT test")
            for table in random.sample(NAMES, dirty):
                name = f"dirty {next(_serials)}"
                cursor.execute(f"INSERT INTO {table} (name, price) VALUES (%s, 1)", [name])
                cursor.execute(f"UPDATE {table} SET price = price + 1 WHERE id = 1")
                cursor.execute(f"DELETE FROM {table} WHERE id = 2")

    def by(dirty: int) -> Taker:
        return around(
            partial(run, app, "BEGIN"), partial(test, dirty), partial(run, app, "ROLLBACK")
        )

    return by


def emptied(own: MySQLRegistry, template: str, statement: str) -> Callable[[int], Taker]:
    """Empty all tables, and copy the rows from a database of this server, in one round trip."""
    address = own.address_of(own.create("live", template=template))
    app = connect(address)
    control = connect(address)
    statements = ["SET foreign_key_checks = 0"]
    for name in NAMES:
        statements.append(f"{statement} {name}")
        statements.append(f"INSERT INTO {name} SELECT * FROM {template}.{name}")

    def leave() -> None:
        run(control, ";".join(statements))

    return lambda dirty: around(_nothing, partial(write, app, dirty), leave)


def cloned(own: MySQLRegistry, template: str) -> Callable[[int], Taker]:
    """Create a copy for each test, with its first connection, and drop it."""
    app: Any = None
    live = ""

    def enter() -> None:
        nonlocal app, live
        live = own.create("live", template=template)
        app = connect(own.address_of(live))

    def leave() -> None:
        app.close()
        own.drop(live)

    def test(dirty: int) -> None:
        write(app, dirty)

    return lambda dirty: around(enter, partial(test, dirty), leave)


def created(own: MySQLRegistry, template: str) -> Callable[[int], Taker]:
    """Call ``create_all``, copy the rows, and call ``drop_all``. The connections are kept."""
    address = own.address_of(own.create("live"))
    app = connect(address)
    engine = create_engine(url_of(address, "mysql", "pymysql"))
    copies = [f"INSERT INTO {name} SELECT * FROM {template}.{name}" for name in NAMES]

    def enter() -> None:
        shop.Base.metadata.create_all(engine)
        run(app, ";".join(copies))

    def leave() -> None:
        shop.Base.metadata.drop_all(engine)

    return lambda dirty: around(enter, partial(write, app, dirty), leave, warm=0)


def _nothing() -> None:
    pass


if __name__ == "__main__":
    main()
