"""A process without the gate, in which the alternatives are measured."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from bench.suite import shop
from bench.work import LOOP, around, checkout, per_call, requests, test_on, write
from bench.worker import serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

FOLDER = Path(os.environ["BENCH_FOLDER"])
TEMPLATE, LIVE = FOLDER / "template.db", FOLDER / "dev.db"


def main() -> None:
    """Make the template and the live file; then answer."""
    _make(TEMPLATE)
    shutil.copyfile(TEMPLATE, LIVE)
    with TemporaryDirectory() as disk:
        serve(_takers(Path(disk)))


def _takers(disk: Path) -> dict[str, Callable[[int], list[float]]]:
    return {
        "bare": _bare(),
        "file_copy": _file_copy(),
        "recipe": _recipe(FOLDER),
        "recipe_on_disk": _recipe(disk),
        "rollback": _rollback(),
        "statement": _statement(),
        "checkout": checkout(shop.engine),
        **_requests(),
    }


def _make(file: Path) -> None:
    engine = create_engine(f"sqlite:///{file}")
    shop.Base.metadata.create_all(engine)
    with Session(engine) as session:
        shop.seed(session)
        session.commit()
    engine.dispose()


def _work() -> None:
    LOOP.run_until_complete(test_on(shop.engine))


def _bare() -> Callable[[int], list[float]]:
    """The fewest calls of SQLite's public interface that can do it, with nothing around them.

    Was there a commit? Then the template's pages are copied into the live file.
    """
    _work()
    source = sqlite3.connect(f"file:{TEMPLATE}?immutable=1", uri=True)
    live = sqlite3.connect(LIVE, isolation_level=None)
    live.execute("PRAGMA synchronous = OFF")
    before = 0

    def version() -> int:
        number: int = live.execute("PRAGMA data_version").fetchone()[0]
        return number

    def enter() -> None:
        nonlocal before
        before = version()

    def leave() -> None:
        if version() != before:
            source.backup(live)

    return around(enter, _work, leave)


def _file_copy() -> Callable[[int], list[float]]:
    """A copy of the template for each test, and the first connection to it."""
    copied = FOLDER / "copied.db"
    engine = shop.new_engine(f"sqlite+aiosqlite:///{copied}")

    async def connect() -> None:
        async with engine.connect():
            pass

    def enter() -> None:
        shutil.copyfile(TEMPLATE, copied)
        LOOP.run_until_complete(connect())

    def leave() -> None:
        LOOP.run_until_complete(engine.dispose())
        copied.unlink()

    return around(enter, lambda: LOOP.run_until_complete(test_on(engine)), leave)


def _recipe(folder: Path) -> Callable[[int], list[float]]:
    """``create_all`` into a temporary file and the rows, a new engine; ``drop_all`` at the end."""
    engine, file = shop.engine, folder / "fresh.db"

    async def enter() -> None:
        nonlocal engine
        engine = shop.new_engine(f"sqlite+aiosqlite:///{file}")
        async with engine.begin() as connection:
            await connection.run_sync(shop.Base.metadata.create_all)
            await connection.run_sync(lambda sync: shop.seed(Session(sync)))

    async def leave() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(shop.Base.metadata.drop_all)
        await engine.dispose()
        file.unlink()

    return around(
        lambda: LOOP.run_until_complete(enter()),
        lambda: LOOP.run_until_complete(test_on(engine)),
        lambda: LOOP.run_until_complete(leave()),
        warm=0,  # it makes all anew, and may take a second
    )


def _rollback() -> Callable[[int], list[float]]:
    """One transaction around a test whose commits are savepoints; the engine is kept."""
    file = FOLDER / "rollback.db"
    shutil.copyfile(TEMPLATE, file)
    engine = shop.new_engine(f"sqlite+aiosqlite:///{file}")
    connection: AsyncConnection

    async def enter() -> None:
        nonlocal connection
        connection = await engine.connect()
        await connection.exec_driver_sql("BEGIN")

    async def test() -> None:
        await connection.exec_driver_sql("SAVEPOINT test")
        await write(connection)
        await connection.exec_driver_sql("RELEASE test")

    async def leave() -> None:
        await connection.rollback()
        await connection.close()

    return around(
        lambda: LOOP.run_until_complete(enter()),
        lambda: LOOP.run_until_complete(test()),
        lambda: LOOP.run_until_complete(leave()),
    )


def _statement() -> Callable[[int], list[float]]:
    cursor = sqlite3.connect(":memory:").cursor()
    return per_call(lambda: cursor.execute("SELECT 1"), calls=1000)


def _requests() -> dict[str, Callable[[int], list[float]]]:
    def new_client() -> AsyncClient:
        return AsyncClient(transport=ASGITransport(shop.app), base_url="http://testserver")

    async def first() -> None:
        app: Any = shop.app
        async with app.router.lifespan_context(app), new_client() as client:
            await client.get("/nothing")

    return {
        "request": requests(new_client()),
        "first_request": per_call(lambda: LOOP.run_until_complete(first()), calls=10),
    }


if __name__ == "__main__":
    main()
