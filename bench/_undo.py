"""The process that is asked by `bench.undo`: a database for each way to take a test back."""

from __future__ import annotations

import os
import random
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from bench.server import connect, databases, url_of
from bench.suite import shop
from bench.work import CountedUses, around
from bench.worker import serve
from pytest_arena._postgresql.isolation import ServerIsolation

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address

    Connection = psycopg.Connection[tuple[Any, ...]]

NAMES = [table.name for table in shop.every_table]
SEEDED = shop.ROWS // shop.TABLES
DIRTIES = [int(one) for one in os.environ["BENCH_DIRTIES"].split()]
_WITH_STRATEGY = 150000
_serials = count()


def main() -> None:
    """Make the databases; then answer."""
    with databases() as own:
        template = own.create("live")
        _fill(own.address_of(template))
        ways = {
            "undo": _isolation(own, template),
            "rollback": _rollback(own, template),
            "delete": _delete(own, template),
            "truncate": _truncate(own, template),
            "clone": _clone(own, template),
            "recipe": _recipe(own, template),
        }
        takers = {f"{name}-{dirty}": ways[name](dirty) for name in ways for dirty in DIRTIES}
        serve(takers)


def _fill(address: Address) -> None:
    engine = create_engine(url_of(address, "psycopg"))
    shop.Base.metadata.create_all(engine)
    with Session(engine) as session:
        shop.seed(session)
        session.commit()
    engine.dispose()
    with connect(address) as app:
        app.execute("VACUUM ANALYZE")


def write(app: Connection, dirty: int) -> None:
    """Change so many tables, other ones each time, in one transaction; look, where that is none.

    In each: two rows that are new, one that is updated, one that is deleted.
    """
    with app.transaction():
        for table in random.sample(NAMES, dirty):
            add = f"INSERT INTO {table} (name, price) VALUES (%s, 1) RETURNING id"
            new = [_first(app, add, f"dirty {next(_serials)}") for _ in range(2)]
            seeded = random.sample(range(1, SEEDED + 1), 2) if SEEDED else new
            app.execute(f"UPDATE {table} SET price = price + 1 WHERE id = %s", [seeded[0]])
            app.execute(f"DELETE FROM {table} WHERE id = %s", [seeded[1]])
        if not dirty:
            app.execute(f"SELECT count(*) FROM {NAMES[0]}")


def _first(app: Connection, sql: Any, *values: object) -> int:
    row = app.execute(sql, values).fetchone()
    assert row is not None, "it returns a row"
    number: int = row[0]
    return number


def _isolation(own: ServerRegistry, template: str) -> Callable[[int], Any]:
    """The isolation as arena has it. It is told of each use, as by the gate."""
    source = own.create("live", template=template)
    own.freeze(source)
    usage = CountedUses()
    isolation = ServerIsolation(own, source, "undo", uses=usage, note=print)
    app, generation = connect(isolation.live.address), isolation.generation

    def test(dirty: int) -> None:
        usage.number += 1
        write(app, dirty)

    def leave() -> None:
        isolation.leave()
        assert isolation.generation == generation, "the database was replaced"

    return _warmed(app, isolation.enter, test, leave)


def _warmed(
    app: Connection,
    enter: Callable[[], None],
    test: Callable[[int], None],
    leave: Callable[[], None],
) -> Callable[[int], Any]:
    """What is planned once for a table is planned before: a suite comes back to the same ones."""
    enter()
    test(len(NAMES))
    leave()
    for name in NAMES:
        found = app.execute(f"SELECT count(*), coalesce(sum(price), 0) FROM {name}").fetchone()
        assert found == (SEEDED, sum(range(SEEDED))), f"{name} was not taken back: {found}"

    def by(dirty: int) -> Callable[[int], list[float]]:
        take = around(enter, partial(test, dirty), leave)

        def in_plans(number: int) -> list[float]:
            # Whatever the others have made and dropped on this server is planned anew.
            enter()
            test(len(NAMES))
            leave()
            return take(number)

        return in_plans

    return by


def _rollback(own: ServerRegistry, template: str) -> Callable[[int], Any]:
    """One transaction around a test on one connection, whose own is a savepoint."""
    app = connect(own.address_of(own.create("live", template=template)))

    def by(dirty: int) -> Callable[[int], list[float]]:
        return around(
            lambda: _run(app, "BEGIN"), partial(write, app, dirty), lambda: _run(app, "ROLLBACK")
        )

    return by


def _delete(own: ServerRegistry, template: str) -> Callable[[int], Any]:
    return _emptied(own, template, "; ".join(f"DELETE FROM {name}" for name in NAMES))


def _truncate(own: ServerRegistry, template: str) -> Callable[[int], Any]:
    return _emptied(own, template, f"TRUNCATE {', '.join(NAMES)} RESTART IDENTITY")


def _emptied(own: ServerRegistry, template: str, how: str) -> Callable[[int], Any]:
    """All tables emptied, and the rows put back from copies in the same database: one round trip.

    A recipe that sends the rows from Python, as most do, takes longer.
    """
    address = own.address_of(own.create("live", template=template))
    app, control = connect(address), connect(address)
    _keep_rows(control)
    reseed = _reseed()

    def leave() -> None:
        _run(control, f"BEGIN; {how}; {reseed}; COMMIT")

    def by(dirty: int) -> Callable[[int], list[float]]:
        take = around(_nothing, partial(write, app, dirty), leave)

        def in_a_tidy_place(number: int) -> list[float]:
            _run(control, "VACUUM")  # the private server runs none by itself
            return take(number)

        return in_a_tidy_place

    return by


def _keep_rows(control: Connection) -> None:
    _run(control, "CREATE SCHEMA kept")
    for name in NAMES:
        _run(control, f"CREATE TABLE kept.{name} AS TABLE public.{name}")


def _reseed() -> str:
    rows = [f"INSERT INTO {name} SELECT * FROM kept.{name}" for name in NAMES if SEEDED]
    numbers = [f"SELECT setval('{name}_id_seq', {SEEDED + 1}, false)" for name in NAMES]
    return "; ".join([*rows, *numbers])


def _version(own: ServerRegistry) -> int:
    [(number,)] = own.control.rows("SELECT current_setting('server_version_num')::int")
    return int(number)


def _clone(own: ServerRegistry, template: str) -> Callable[[int], Any]:
    """A database copied from a template for each test, and the first connection to it."""
    source, control = own.create("live", template=template), connect(own.address_of("postgres"))
    how = "STRATEGY FILE_COPY" if _version(own) >= _WITH_STRATEGY else ""
    app: Connection
    name = ""

    def enter() -> None:
        nonlocal app, name
        name = f"{source}_{next(_serials)}"
        _run(control, f"CREATE DATABASE {name} TEMPLATE {source} {how}")
        app = connect(own.address_of(name))

    def leave() -> None:
        app.close()
        # Dropped a moment too early, it would be looked at again after a tenth of a second.
        while control.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = %s", [name]
        ).fetchone():
            pass
        _run(control, f"DROP DATABASE {name}")

    def by(dirty: int) -> Callable[[int], list[float]]:
        return around(enter, lambda: write(app, dirty), leave)

    return by


def _recipe(own: ServerRegistry, template: str) -> Callable[[int], Any]:
    """``create_all`` and the rows, ``drop_all`` at the end; engine and connections are kept."""
    address = own.address_of(own.create("live", template=template))
    app, engine = connect(address), create_engine(url_of(address, "psycopg"))
    _keep_rows(app)
    shop.Base.metadata.drop_all(engine)
    reseed = _reseed()

    def enter() -> None:
        shop.Base.metadata.create_all(engine)
        _run(app, f"BEGIN; {reseed}; COMMIT")

    def by(dirty: int) -> Callable[[int], list[float]]:
        return around(
            enter,
            partial(write, app, dirty),
            lambda: shop.Base.metadata.drop_all(engine),
            warm=0,  # it makes all anew, and may take a second
        )

    return by


def _run(connection: Connection, sql: str) -> None:
    connection.execute(sql.encode(), prepare=False)


def _nothing() -> None:
    pass


if __name__ == "__main__":
    main()
