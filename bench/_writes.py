"""The process that is asked by `bench.undo` what the journal's triggers add to statements."""

from __future__ import annotations

from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.server import add_journal, connect, databases
from bench.worker import serve
from pytest_arena._postgresql.journal._server import ServerJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address

    Connection = psycopg.Connection[tuple[Any, ...]]

_ROWS = 1000
_TABLE = """
CREATE TABLE items (id serial PRIMARY KEY, name varchar(200), price integer);
CREATE INDEX ON items (name);
"""
_SEED = f"""
INSERT INTO items (id, name, price)
SELECT id, lpad(id::text, 8, '0') || repeat(' sand', 14), id FROM generate_series(1, {_ROWS}) id
ON CONFLICT DO NOTHING
"""
_ONE = {
    "insert": "INSERT INTO items (name, price) VALUES (%(name)s, 1)",
    "update": "UPDATE items SET price = price + 1 WHERE id = %(id)s",
    "delete": "DELETE FROM items WHERE id = %(id)s",
    "update-none": "UPDATE items SET price = price + 1 WHERE id = -%(id)s",
}
_MANY = {
    "insert-many": "INSERT INTO items (name, price) "
    f"SELECT lpad(id::text, 8, '0') || repeat(' sand', 14), id FROM generate_series(1, {_ROWS}) id",
    "update-many": f"UPDATE items SET price = price + 1 WHERE id <= {_ROWS}",
    "delete-many": f"DELETE FROM items WHERE id <= {_ROWS}",
}
# What VACUUM has made invalid is planned anew, and once for all after the fifth time.
_WARM = 8
_ids = count(1)


class _Plain:
    """A table without triggers."""

    def __init__(self, own: ServerRegistry) -> None:
        self.address = own.address_of(own.create("live"))
        self._control = connect(self.address)
        _run(self._control, _TABLE)
        self._tidy()
        _run(self._control, f"SELECT setval('items_id_seq', {_ROWS})")

    def restore(self) -> None:
        """Bring the rows back that a turn has changed."""
        _run(self._control, f"DELETE FROM items WHERE id > {_ROWS}")
        self._tidy()

    def _tidy(self) -> None:
        _run(self._control, _SEED)
        _run(self._control, "VACUUM ANALYZE items")


class _Journaled(_Plain):
    """The same with the journal's, in a level that is left after each turn."""

    def __init__(self, own: ServerRegistry) -> None:
        super().__init__(own)
        add_journal(self.address)
        self._journal = ServerJournal(self.address)
        self._journal.enter(1)

    def restore(self) -> None:
        """Take it back by the journal."""
        self._journal.leave(1)
        self._tidy()
        self._journal.enter(1)


def main() -> None:
    """Make both databases; then answer."""
    with databases() as own:
        places = {"plain": _Plain(own), "journal": _Journaled(own)}
        serve({f"{place}-{name}": one for place in places for name, one in _takers(places[place])})


def _takers(place: _Plain) -> Iterator[tuple[str, Callable[[int], list[float]]]]:
    app = connect(place.address)
    for name, sql in _ONE.items():
        yield name, _one(app, sql, place.restore)
    for name, sql in _MANY.items():
        yield name, _many(app, sql, place.restore)
    yield "first-update", _first(place.address, _ONE["update"], place.restore)


def _one(app: Connection, sql: Any, restore: Callable[[], None]) -> Callable[[int], list[float]]:
    """A row each time, on a connection that has prepared the statement, committed at once."""

    def take(number: int) -> list[float]:
        times = [_timed(app, sql, _values()) for _ in range(number + _WARM)]
        restore()
        return times[_WARM:]

    return take


def _many(app: Connection, sql: Any, restore: Callable[[], None]) -> Callable[[int], list[float]]:
    """Many rows at once, in a transaction that is rolled back."""

    def take(number: int) -> list[float]:
        times = []
        for _ in range(number + 1):
            app.execute("BEGIN")
            times.append(_timed(app, sql, None))
            app.execute("ROLLBACK")
        restore()
        return times[1:]

    return take


def _first(address: Address, sql: Any, restore: Callable[[], None]) -> Callable[[int], list[float]]:
    """The first statement of a new connection."""

    def take(number: int) -> list[float]:
        times = []
        for _ in range(number):
            with connect(address) as app:
                app.execute("SELECT 1")
                times.append(_timed(app, sql, _values()))
        restore()
        return times

    return take


def _values() -> dict[str, object]:
    number = next(_ids)
    return {"name": f"dirty {number}", "id": number % _ROWS + 1}


def _timed(app: Connection, sql: Any, values: dict[str, object] | None) -> float:
    started = perf_counter()
    app.execute(sql, values)
    return perf_counter() - started


def _run(connection: Connection, sql: str) -> None:
    connection.execute(sql.encode(), prepare=False)


if __name__ == "__main__":
    main()
