"""Objects that a request leaves in its session, neither flushed nor committed, are lost writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of

if TYPE_CHECKING:
    from tests.example import Example, Run

APP = """
import asyncio
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse, Response
from sqlalchemy import Column, ForeignKey, Table, create_engine, select
from sqlalchemy.ext.asyncio import (
    AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase, Mapped, Session, column_property, joinedload, make_transient, mapped_column,
    relationship, scoped_session, sessionmaker,
)


class Base(DeclarativeBase):
    pass


marks = Table(
    "marks",
    Base.metadata,
    Column("customer_id", ForeignKey("customers.id"), primary_key=True),
    Column("label_id", ForeignKey("labels.id"), primary_key=True),
)


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list["Order"]] = relationship(back_populates="customer")
    shown: Mapped[list["Order"]] = relationship(viewonly=True)
    labels: Mapped[list["Label"]] = relationship(secondary=marks)
    length: Mapped[int] = column_property(select(1).scalar_subquery())


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customers.id"))
    customer: Mapped[Customer | None] = relationship(back_populates="orders")


class Label(Base):
    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


URL = os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///shop.db")
engine = create_async_engine(URL)
maker = async_sessionmaker(engine, expire_on_commit=False)
SYNC_URL = URL.replace("+aiosqlite", "").replace("+asyncpg", "+psycopg")
sync_engine = create_engine(SYNC_URL)
Scoped = scoped_session(sessionmaker(sync_engine))
app = FastAPI()


def get_sync():
    with Session(sync_engine) as session:
        yield session


async def get_async():
    async with maker() as session:
        yield session


def get_scoped():
    yield Scoped
    Scoped.remove()


async def get_careful():
    async with maker() as session:
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise


async def get_begun():
    async with maker.begin() as session:
        yield session


def get_sync_careful():
    with Session(sync_engine) as session:
        try:
            yield session
            session.commit()
        except Exception:
            session.rollback()
            raise


# What is lost.


def add(session):
    session.add_all([Order(item="vase"), Order(item="bowl")])


def change(session):
    session.get(Customer, 1).name = "Else"


def delete(session):
    session.delete(session.get(Customer, 1))


def append(session):
    customer = session.get(Customer, 1)
    customer.orders.append(Order(item="vase"))


def mark(session):
    customer = session.get(Customer, 1)
    customer.labels.append(session.get(Label, 1))


def refer(session):
    session.get(Order, 1).customer = session.get(Customer, 1)


def merge(session):
    session.merge(Customer(id=1, name="Else"))


def committed_before(session):
    customer = session.get(Customer, 1)
    customer.name = "Else"
    session.commit()
    customer.name = "Other"


LOST = {
    "add": "added Order (2)",
    "change": "changed Customer",
    "delete": "deleted Customer",
    "append": "added Order",
    "mark": "changed Customer",
    "refer": "changed Order",
    "merge": "changed Customer",
    "committed_before": "changed Customer",
}


# What is not.


def read(session):
    customer = session.get(Customer, 1)
    customer.greeting = "Hello"
    customer.name = customer.name
    customer.length = 7


def same(session):
    session.get(Customer, 1).name = "Ada"


def back_again(session):
    customer = session.get(Customer, 1)
    customer.name = "Else"
    customer.name = "Ada"


def committed(session):
    add(session)
    change(session)
    session.commit()


def rolled_back(session):
    add(session)
    change(session)
    session.rollback()


def expunged(session):
    order = Order(item="vase")
    session.add(order)
    session.expunge(order)
    customer = session.get(Customer, 1)
    session.expunge(customer)
    customer.name = "Else"


def expired(session):
    customer = session.get(Customer, 1)
    customer.name = "Else"
    session.refresh(customer)
    customer.name = "Else"
    session.expire(customer)


def merged(session):
    session.merge(Customer(id=1, name="Ada"))


def beside_a_relationship(session):
    customer = session.get(Customer, 1)
    Order(item="vase", customer=customer)


def beside_one_that_shows(session):
    customer = session.get(Customer, 1)
    customer.shown.append(Order(item="vase"))
    customer.shown.append(session.get(Order, 1))


def beside_a_loaded_relationship(session):
    customer = session.scalars(select(Customer).options(joinedload(Customer.orders))).unique().one()
    Order(item="vase", customer=customer)


def without_autoflush(session):
    with session.no_autoflush:
        order = Order(item="vase")
        session.add(order)
        session.scalars(select(Order)).all()
        session.expunge(order)


def transient(session):
    customer = session.get(Customer, 1)
    customer.name = "Else"
    make_transient(customer)


SILENT = [
    "read", "same", "back_again", "committed", "rolled_back", "expunged", "expired", "merged",
    "beside_a_relationship", "beside_one_that_shows", "beside_a_loaded_relationship",
    "without_autoflush", "transient",
]


@app.post("/sync/{case}/{status}")
def sync_case(case: str, status: int, session=Depends(get_sync)):
    globals()[case](session)
    return JSONResponse({}, status)


@app.post("/async/{case}/{status}")
async def async_case(case: str, status: int, session: AsyncSession = Depends(get_async)):
    await session.run_sync(globals()[case])
    return JSONResponse({}, status)


@app.post("/scoped/{case}/{status}")
def scoped_case(case: str, status: int, session=Depends(get_scoped)):
    globals()[case](session)
    return JSONResponse({}, status)


@app.post("/open/{case}/{status}")
def open_case(case: str, status: int):
    globals()[case](Session(sync_engine))
    return JSONResponse({}, status)


@app.post("/open_async/{case}/{status}")
async def open_async_case(case: str, status: int):
    await AsyncSession(engine).run_sync(globals()[case])
    gc.collect()  # the session has ended
    return JSONResponse({}, status)


async_scoped = async_scoped_session(maker, asyncio.current_task)


@app.post("/async_scoped/{case}/{status}")
async def async_scoped_case(case: str, status: int):
    await async_scoped().run_sync(globals()[case])
    await async_scoped.remove()
    return JSONResponse({}, status)


@app.websocket("/socket")
async def socket(websocket: WebSocket, session: AsyncSession = Depends(get_async)):
    await websocket.accept()
    await session.run_sync(add)
    await websocket.send_text("added")


@app.post("/raises/{status}")
async def raises(status: int, session: AsyncSession = Depends(get_async)):
    await session.run_sync(add)
    raise HTTPException(status)


class MovedError(Exception):
    status_code = 303  # of another service


@app.post("/moved")
async def moved():
    async with maker() as session:
        try:
            await session.run_sync(add)
            await session.flush()
            raise MovedError
        except MovedError:
            await session.rollback()


@app.post("/caught")
async def caught():
    try:
        async with maker() as session:
            await session.run_sync(add)
            raise LookupError
    except LookupError:
        pass


# Sessions and connections that the app drops unclosed.


@app.post("/dropped/{end}/{status}")
def dropped(end: str, status: int):
    session = Session(sync_engine)
    add(session)
    session.flush()
    if end != "open":
        getattr(session, end)()
    return JSONResponse({}, status)


@app.post("/dropped_async/{end}/{status}")
async def dropped_async(end: str, status: int):
    session = maker()
    await session.run_sync(add)
    await session.flush()
    if end != "open":
        await getattr(session, end)()
    return JSONResponse({}, status)


@app.post("/dropped_connection/{end}/{status}")
def dropped_connection(end: str, status: int):
    connection = sync_engine.connect()
    connection.execute(Order.__table__.insert().values(item="vase"))
    if end != "open":
        getattr(connection, end)()
    return JSONResponse({}, status)


# Dependencies that roll back because of the exception, though it is a redirect.


@app.post("/careful/{what}/{status}")
async def careful(what: str, status: int, session: AsyncSession = Depends(get_careful)):
    await session.run_sync(add)
    if what == "flushed":
        await session.flush()
    raise HTTPException(status, headers={"Location": "/"})


@app.post("/begun/{what}/{status}")
async def begun(what: str, status: int, session: AsyncSession = Depends(get_begun)):
    await session.run_sync(add)
    if what == "flushed":
        await session.flush()
    raise HTTPException(status, headers={"Location": "/"})


@app.post("/leaving/{what}/{status}")
async def leaving(what: str, status: int, session: AsyncSession = Depends(get_async)):
    await session.run_sync(add)
    if what == "flushed":
        await session.flush()
    raise HTTPException(status, headers={"Location": "/"})


@app.post("/sync_careful/{what}/{status}")
def sync_careful(what: str, status: int, session=Depends(get_sync_careful)):
    add(session)
    if what == "flushed":
        session.flush()
    raise HTTPException(status, headers={"Location": "/"})


@app.post("/sync_leaving/{what}/{status}")
def sync_leaving(what: str, status: int, session=Depends(get_sync)):
    add(session)
    if what == "flushed":
        session.flush()
    raise HTTPException(status, headers={"Location": "/"})


# Work that goes on after the answer.


async def lose(way):
    async with maker() as session:
        await session.run_sync(add)
        if "flush" in way:
            await session.flush()
        if "commit" in way:
            await session.commit()
        if "raise" in way:
            raise LookupError


def lose_in_a_thread(way):
    with Session(sync_engine) as session:
        add(session)
        if "flush" in way:
            session.flush()
        if "commit" in way:
            session.commit()


pool = ThreadPoolExecutor(1)


@app.post("/late/{kind}/{way}/{status}")
async def late(kind: str, way: str, status: int, tasks: BackgroundTasks):
    if kind == "background":
        tasks.add_task(lose, way)
    elif kind == "background-thread":
        tasks.add_task(lose_in_a_thread, way)
    elif kind == "task":
        app.state.task = asyncio.create_task(lose(way))
    elif kind == "executor":
        asyncio.get_running_loop().run_in_executor(None, lose_in_a_thread, way)
    elif kind == "pool":
        pool.submit(lose_in_a_thread, way)
    elif kind == "thread":
        Thread(target=lose_in_a_thread, args=(way,)).start()
    return Response(status_code=status, background=tasks)
"""
SEED = """
from app import Customer, Label, Order


def seed(session):
    session.add_all([Customer(name="Ada"), Order(item="cup"), Label(text="good")])
"""
TESTS = """
import asyncio
import pytest
from app import LOST, SILENT, Customer, Order, Session, app, get_sync, sync_engine

WAYS = ["async", "scoped", "async_scoped", "open", "open_async"]


@pytest.mark.parametrize("way, case", [
    *[("sync", case) for case in LOST],
    *[(way, "add") for way in WAYS],
    *[(way, "change") for way in WAYS[:-1]],
])
def test_lost(test_client, way, case):
    assert test_client.post(f"/{way}/{case}/200").status_code == 200


@pytest.mark.parametrize("way, case", [
    *[("sync", case) for case in SILENT], *[(way, "committed") for way in WAYS]
])
def test_silent(test_client, way, case):
    assert test_client.post(f"/{way}/{case}/200").status_code == 200


@pytest.mark.parametrize("way", ["sync", *WAYS])
def test_silent_if_refused(test_client, way):
    assert test_client.post(f"/{way}/add/409").status_code == 409


async def test_silent_by_an_error(client):
    assert (await client.post("/raises/409")).status_code == 409
    assert (await client.post("/caught")).status_code == 200
    assert (await client.post("/moved")).status_code == 200


def test_silent_if_the_test_overrides_the_session(test_client, db_session):
    app.dependency_overrides[get_sync] = lambda: db_session
    assert test_client.post("/sync/add/200").status_code == 200


def test_silent_if_the_test_overrides_it_with_its_own(test_client):
    with Session(sync_engine) as session:
        app.dependency_overrides[get_sync] = lambda: session
        assert test_client.post("/sync/add/200").status_code == 200


def test_silent_if_the_test_commits_it(test_client):
    session = Session(sync_engine)
    app.dependency_overrides[get_sync] = lambda: session
    assert test_client.post("/sync/add/200").status_code == 200
    session.commit()
    session.close()


async def test_lost_of_async_client(client):
    assert (await client.post("/async/add/201")).status_code == 201


async def test_lost_of_websocket(client):
    async with client.websocket_connect("/socket") as socket:
        assert await socket.receive_text() == "added"


async def test_lost_beside_a_refused_request(client):
    lost, refused = await asyncio.gather(
        client.post("/async/delete/200"), client.post("/async/add/409")
    )
    assert (lost.status_code, refused.status_code) == (200, 409)


async def test_fails_of_itself(client):
    await client.post("/async/add/201")
    assert 0, "as wanted"
"""


WAYS = ("sync", "async", "scoped", "async_scoped", "open", "open_async")
SLOW_HOWS = ("copy", pytest.param("undo", marks=pytest.mark.slow))


def run_of(example: Example, tests: str, *options: str, how: str = "copy") -> Run:
    """Run tests of the app."""
    return example.with_files(app=APP, seed=SEED, test_it=tests).run(*options, env=env_of(how))


@pytest.mark.parametrize("how", SLOW_HOWS)
def test_objects_that_were_never_flushed(example: Example, how: str) -> None:
    """The request is named, and what it did. As an error it fails its test."""
    run = run_of(example, TESTS, "-Werror::pytest_arena.LostWriteWarning", how=how)
    lost = ", and never flushed or committed it: lost"
    namespace: dict[str, dict[str, str]] = {}
    exec(APP[APP.index("LOST = {") : APP.index("# What is not.")], namespace)  # noqa: S102 - the app's own table
    for case, words in namespace["LOST"].items():
        for way in _ways_of(case):
            run.says(f"LostWriteWarning: POST /{way}/{case}/200 200 {words}{lost}")
    for line in run.output.splitlines():
        assert not line.startswith("ERROR test_it.py::test_silent"), run.output
    run.says(f"POST /async/add/201 201 added Order (2){lost}")
    run.says('session.add_all([Order(item="vase"), Order(item="bowl")])')
    run.says("    added Order (2), and never flushed or committed it: lost (")
    run.says(f"WEBSOCKET /socket 101 added Order (2){lost}")
    run.says(f"POST /async/delete/200 200 deleted Customer{lost}")
    # What the other ways lose, and the last three tests.
    assert run.outcomes["errors"] == len(namespace["LOST"]) + 9 + 3
    assert run.outcomes["failed"] == 1


def _ways_of(case: str) -> tuple[str, ...]:
    """Return how the session of a case is opened. An async one that is never closed only adds."""
    if case == "add":
        return WAYS
    return WAYS[:-1] if case == "change" else WAYS[:1]


REDIRECTS = """
import pytest

WAYS = ["careful", "begun", "leaving", "sync_careful", "sync_leaving"]


@pytest.mark.parametrize("what", ["flushed", "added"])
@pytest.mark.parametrize("way", WAYS)
async def test_lost(client, way, what):
    assert (await client.post(f"/{way}/{what}/303")).status_code == 303


@pytest.mark.parametrize("way", WAYS)
async def test_silent(client, way):
    assert (await client.post(f"/{way}/flushed/409")).status_code == 409
    assert (await client.post(f"/{way}/added/409")).status_code == 409
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_a_redirect_that_is_raised_rolls_back(example: Example, how: str) -> None:
    """The client takes it for a success. An answer from 400 on says that nothing was done."""
    run = run_of(example, REDIRECTS, "-Werror::pytest_arena.LostWriteWarning", how=how)
    run.expect(1, passed=15, errors=10)
    for way in ("careful", "begun", "leaving", "sync_careful", "sync_leaving"):
        run.says(
            f"LostWriteWarning: POST /{way}/added/303 303 added Order (2), and "
            "never flushed or committed it",
            f"LostWriteWarning: POST /{way}/flushed/303 303 wrote orders (2 rows) and never "
            "committed it",
        )


DROPPED = """
import gc
import pytest

WAYS = ["dropped", "dropped_async", "dropped_connection"]
pytestmark = pytest.mark.filterwarnings("ignore:The garbage collector")


@pytest.mark.parametrize("has_collected", [True, False])
@pytest.mark.parametrize("way", WAYS)
async def test_lost(client, way, has_collected):
    assert (await client.post(f"/{way}/open/201")).status_code == 201
    if has_collected:
        gc.collect()


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("way", WAYS)
async def test_silent(client, way, end):
    assert (await client.post(f"/{way}/{end}/201")).status_code == 201


@pytest.mark.parametrize("way", WAYS)
async def test_silent_if_refused(client, way):
    assert (await client.post(f"/{way}/open/409")).status_code == 409
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", SLOW_HOWS)
def test_what_a_session_loses_that_is_dropped_unclosed(example: Example, how: str) -> None:
    """The pool rolls it back when the garbage collector finds it: later, and in any code."""
    run = run_of(example, DROPPED, "-Werror::pytest_arena.LostWriteWarning", how=how)
    run.expect(1, passed=15, errors=6)
    for way in ("dropped", "dropped_async"):
        run.says(f"LostWriteWarning: POST /{way}/open/201 201 wrote orders (2 rows) and never")
    run.says("LostWriteWarning: POST /dropped_connection/open/201 201 wrote orders (1 row) and")
    run.says("next:  session.commit(), with await if it is async")


LATE = """
import pytest

KINDS = ["background", "background-thread", "task", "executor", "pool", "thread"]


@pytest.mark.parametrize("way", ["flush", "add"])
@pytest.mark.parametrize("kind", KINDS)
async def test_lost(client, kind, way):
    assert (await client.post(f"/late/{kind}/{way}/202")).status_code == 202


@pytest.mark.parametrize("kind", KINDS)
async def test_silent(client, kind):
    assert (await client.post(f"/late/{kind}/flush-commit/202")).status_code == 202
    assert (await client.post(f"/late/{kind}/flush/409")).status_code == 409


async def test_silent_if_it_fails(client):
    assert (await client.post("/late/task/flush-raise/202")).status_code == 202


async def test_each_with_its_own_request(client, arena):
    assert (await client.post("/late/task/add/202")).status_code == 202
    assert (await client.post("/sync/read/200")).status_code == 200
    await arena.settled()
    assert (await client.post("/sync/read/200")).status_code == 200


def test_sync_client(test_client):
    assert test_client.post("/late/task/flush/202").status_code == 202
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", SLOW_HOWS)
def test_what_late_work_loses(example: Example, how: str) -> None:
    """The request that began it is named, also if the work ends after the next request."""
    run = run_of(example, LATE, "-Werror::pytest_arena.LostWriteWarning", how=how)
    for kind in ("background", "background-thread", "task", "executor", "pool", "thread"):
        run.says(
            f"LostWriteWarning: POST /late/{kind}/add/202 202 added Order (2), and never",
            f"LostWriteWarning: POST /late/{kind}/flush/202 202 wrote orders (2 rows) and never",
        )
    run.says("ERROR test_it.py::test_each_with_its_own_request")
    run.expect(1, passed=21, errors=14)
