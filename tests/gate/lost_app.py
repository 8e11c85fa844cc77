"""A web app whose requests write, and end their transactions in each way there is."""

from __future__ import annotations

__all__ = ["APP"]

APP = r'''
import gc
import os
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import create_engine, delete, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    """The app's."""


class Dancer(Base):
    """Seeded with one."""

    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Score(Base):
    """Seeded with none."""

    __tablename__ = "scores"
    id: Mapped[int] = mapped_column(primary_key=True)
    points: Mapped[int]


SYNC, ASYNC = (names.split() for names in os.environ["DRIVERS"].split("/"))
REST = os.environ["REST"]  # of the URL: the developer's file or server
sync_engines = {driver: create_engine(f"{driver}:{REST}") for driver in SYNC}
async_engines = {driver: create_async_engine(f"{driver}:{REST}") for driver in ASYNC}


def _begin_by_hand(engine) -> None:
    # SQLAlchemy's own recipe for SQLite; aiosqlite's begins by itself all the same.
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _entry: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")


if "sqlite" in SYNC:
    sync_engines["by hand"] = create_engine(f"sqlite:{REST}")
    _begin_by_hand(sync_engines["by hand"])


# What a request does in a session that is closed then. All but the first few are no lost writes.


def orm(session: Session) -> None:
    session.add_all([Dancer(name="New"), Score(points=1), Score(points=2)])
    session.flush()


def core(session: Session) -> None:
    session.execute(insert(Score), [{"points": 1}, {"points": 2}])
    session.execute(update(Dancer).values(name="Other"))


def deleted(session: Session) -> None:
    session.execute(delete(Dancer))


def texts(session: Session) -> None:
    session.execute(
        text("/* a comment */ insert into scores (points) VALUES (:points)"), {"points": 1}
    )


def raw_text(session: Session) -> None:
    session.connection().exec_driver_sql("UPDATE dancers SET name = 'Other'")


def returning(session: Session) -> None:
    session.execute(insert(Score).values(points=1).returning(Score.id)).scalar_one()
    session.execute(update(Dancer).values(name="Other").returning(Dancer.id)).all()


def many_with_returning(session: Session) -> None:
    session.scalars(insert(Score).returning(Score.id), [{"points": 1}, {"points": 2}]).all()


def savepoint_released(session: Session) -> None:
    with session.begin_nested():
        session.add(Score(points=1))


def savepoint_undone_and_more(session: Session) -> None:
    session.execute(insert(Score).values(points=1))
    try:
        with session.begin_nested():
            session.execute(insert(Score).values(points=2))
            session.execute(insert(Dancer).values(name="Sand"))
    except DBAPIError:
        pass


def begun_by_name(session: Session) -> None:
    session.begin()
    session.execute(insert(Score).values(points=1))


def committed_before(session: Session) -> None:
    session.execute(insert(Dancer).values(name="New"))
    session.commit()
    session.execute(insert(Score).values(points=1))


def failed_statement(session: Session) -> None:
    session.execute(insert(Score).values(points=1))
    try:
        session.execute(insert(Dancer).values(name="Sand"))
    except DBAPIError:
        return


LOST: dict[str, tuple[Any, tuple[str, ...], int]] = {
    "orm": (orm, ("dancers", "scores"), 3),
    "core": (core, ("scores", "dancers"), 3),
    "deleted": (deleted, ("dancers",), 1),
    "texts": (texts, ("scores",), 1),
    "raw text": (raw_text, ("dancers",), 1),
    "returning": (returning, ("scores", "dancers"), 2),
    "many with returning": (many_with_returning, ("scores",), 2),
    "savepoint released": (savepoint_released, ("scores",), 1),
    "savepoint undone, and more": (savepoint_undone_and_more, ("scores",), 1),
    "begun by name": (begun_by_name, ("scores",), 1),
    "committed before": (committed_before, ("scores",), 1),
    "failed statement": (failed_statement, ("scores",), 1),
}


def read(session: Session) -> None:
    session.scalars(select(Dancer)).all()
    session.execute(text("WITH a AS (SELECT 'delete from scores' AS b) SELECT * FROM a")).all()


def committed(session: Session) -> None:
    orm(session)
    session.commit()


def committed_and_read(session: Session) -> None:
    orm(session)
    session.commit()
    read(session)


def rolled_back(session: Session) -> None:
    orm(session)
    session.rollback()


def rolled_back_and_read(session: Session) -> None:
    orm(session)
    session.rollback()
    read(session)


def savepoint_undone(session: Session) -> None:
    savepoint = session.begin_nested()
    session.execute(insert(Score).values(points=1))
    savepoint.rollback()
    read(session)


def failed_flush(session: Session) -> None:
    session.execute(insert(Score).values(points=1))
    session.add(Dancer(name="Sand"))
    try:
        session.flush()
    except DBAPIError:
        return


def nothing_to_update(session: Session) -> None:
    session.execute(update(Dancer).where(Dancer.name == "Nobody").values(name="Other"))
    session.execute(delete(Dancer).where(Dancer.name == "Nobody"))
    session.execute(text("UPDATE dancers SET name = 'Other' WHERE name = 'Nobody'"))


def nothing_returned(session: Session) -> None:
    change = update(Dancer).where(Dancer.name == "Nobody").values(name="Other")
    session.execute(change.returning(Dancer.id)).all()


def conflict_ignored(session: Session) -> None:
    session.execute(
        text("INSERT INTO dancers (id, name) VALUES (1, 'Sand') ON CONFLICT DO NOTHING")
    )


def text_commit(session: Session) -> None:
    orm(session)
    session.execute(text("COMMIT"))


def text_commit_and_read(session: Session) -> None:
    text_commit(session)
    session.connection().exec_driver_sql("SELECT * FROM dancers").all()


def text_rollback(session: Session) -> None:
    orm(session)
    session.connection().exec_driver_sql("-- enough\nROLLBACK")


def drivers_commit(session: Session) -> None:
    orm(session)
    session.connection().connection.commit()


def drivers_commit_and_read(session: Session) -> None:
    drivers_commit(session)
    read(session)


def autocommit(session: Session) -> None:
    connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    connection.execute(insert(Score).values(points=1))
    orm(session)


SILENT = {
    one.__name__: one
    for one in (
        read,
        committed,
        committed_and_read,
        rolled_back,
        rolled_back_and_read,
        savepoint_undone,
        failed_flush,
        nothing_to_update,
        nothing_returned,
        conflict_ignored,
        text_commit,
        text_commit_and_read,
        text_rollback,
        drivers_commit,
        drivers_commit_and_read,
        autocommit,
    )
}


def _case(name: str) -> Any:
    return LOST[name][0] if name in LOST else SILENT[name]


# The ways of a session from the engine to its end.


def get_sync(driver: str):
    session = Session(sync_engines[driver])
    try:
        yield session
    finally:
        session.close()


async def get_async(driver: str):
    async with AsyncSession(async_engines[driver]) as session:
        yield session


async def get_async_by_hand(driver: str):
    session = AsyncSession(async_engines[driver])
    try:
        yield session
    finally:
        await session.close()


app = FastAPI()
OnSync, OnAsync, ByHand = Depends(get_sync), Depends(get_async), Depends(get_async_by_hand)


@app.post("/sync/{driver}/case/{name}")
def sync_case(name: str, session: Session = OnSync) -> None:
    """What the case does, and no more."""
    _case(name)(session)


@app.post("/async/{driver}/case/{name}")
async def async_case(name: str, session: AsyncSession = OnAsync) -> None:
    """The same over an async driver."""
    await session.run_sync(_case(name))


@app.post("/by-hand/{driver}/case/{name}")
async def by_hand_case(name: str, session: AsyncSession = ByHand) -> None:
    """With a session that is closed by a line of the app's."""
    await session.run_sync(_case(name))


@app.post("/sync/{driver}/raised")
def sync_raised(session: Session = OnSync) -> None:
    """Written, and given up by an error."""
    orm(session)
    raise HTTPException(409)


@app.post("/async/{driver}/raised")
async def async_raised(session: AsyncSession = OnAsync) -> None:
    """The same over an async driver."""
    await session.run_sync(orm)
    raise HTTPException(409)


@app.post("/by-hand/{driver}/raised")
async def by_hand_raised(session: AsyncSession = ByHand) -> None:
    """The same with a session that is closed by a line of the app's."""
    await session.run_sync(orm)
    raise HTTPException(409)


@app.post("/sync/{driver}/caught")
def sync_caught(driver: str) -> None:
    """The error goes no further than the app."""
    try:
        with Session(sync_engines[driver]) as session:
            orm(session)
            raise ValueError
    except ValueError:
        pass
    try:
        with sync_engines[driver].connect() as connection:
            connection.execute(insert(Score).values(points=1))
            raise ValueError
    except ValueError:
        pass


@app.post("/async/{driver}/caught")
async def async_caught(driver: str) -> None:
    """The same over an async driver."""
    try:
        async with AsyncSession(async_engines[driver]) as session:
            await session.run_sync(orm)
            raise ValueError
    except ValueError:
        pass
    try:
        async with async_engines[driver].connect() as connection:
            await connection.execute(insert(Score).values(points=1))
            raise ValueError
    except ValueError:
        pass
    session = AsyncSession(async_engines[driver])
    try:
        await session.run_sync(orm)
        raise ValueError
    except ValueError:
        await session.close()


@app.post("/sync/{driver}/begun")
def sync_begun(driver: str) -> None:
    """Blocks that commit at their end, and roll back at an error."""
    with sync_engines[driver].begin() as connection:
        connection.execute(insert(Score).values(points=1))
    with Session(sync_engines[driver]) as session, session.begin():
        session.add(Score(points=2))
    try:
        with sync_engines[driver].begin() as connection:
            connection.execute(insert(Score).values(points=3))
            raise ValueError
    except ValueError:
        pass


@app.post("/async/{driver}/begun")
async def async_begun(driver: str) -> None:
    """The same over an async driver."""
    async with async_engines[driver].begin() as connection:
        await connection.execute(insert(Score).values(points=1))
    async with AsyncSession(async_engines[driver]) as session, session.begin():
        session.add(Score(points=2))
    try:
        async with async_engines[driver].begin() as connection:
            await connection.execute(insert(Score).values(points=3))
            raise ValueError
    except ValueError:
        pass


@app.post("/sync/{driver}/connection")
def sync_connection(driver: str) -> None:
    """A connection without a session, forgotten."""
    with sync_engines[driver].connect() as connection:
        connection.execute(insert(Dancer).values(name="New"))
        connection.commit()
        connection.execute(insert(Score).values(points=1))


@app.post("/async/{driver}/connection")
async def async_connection(driver: str) -> None:
    """The same over an async driver."""
    async with async_engines[driver].connect() as connection:
        await connection.execute(insert(Dancer).values(name="New"))
        await connection.commit()
        await connection.execute(insert(Score).values(points=1))


@app.post("/sync/{driver}/connection-rolled-back")
def sync_connection_rolled_back(driver: str) -> None:
    """A connection without a session, and a change of mind."""
    with sync_engines[driver].connect() as connection:
        transaction = connection.begin()
        connection.execute(insert(Score).values(points=1))
        transaction.rollback()
        connection.execute(insert(Score).values(points=1))
        connection.rollback()


@app.post("/async/{driver}/connection-rolled-back")
async def async_connection_rolled_back(driver: str) -> None:
    """The same over an async driver."""
    async with async_engines[driver].connect() as connection:
        transaction = await connection.begin()
        await connection.execute(insert(Score).values(points=1))
        await transaction.rollback()
        await connection.execute(insert(Score).values(points=1))
        await connection.rollback()


@app.post("/sync/{driver}/never-closed")
def sync_never_closed(driver: str) -> None:
    """Given back to the pool by the garbage collector."""
    session = Session(sync_engines[driver])
    orm(session)
    del session
    gc.collect()


@app.post("/sync/{driver}/autocommit")
def sync_autocommit(driver: str) -> None:
    """An engine that commits each statement."""
    engine = sync_engines[driver].execution_options(isolation_level="AUTOCOMMIT")
    with Session(engine) as session:
        orm(session)


@app.post("/async/{driver}/autocommit")
async def async_autocommit(driver: str) -> None:
    """The same over an async driver."""
    engine = async_engines[driver].execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        await session.run_sync(orm)
'''
