"""The run of ``--arena-replay``: what it reports, what it leaves alone, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

FLAG = "--arena-replay"
XDIST = ("-p", "xdist.plugin", "-n2")
TESTS = """
import pytest

@pytest.fixture
async def dancer(client):
    await client.post("/dancers/Fixture")

@pytest.mark.parametrize("turn", range(4))
async def test_first(dancer, client, turn):
    assert len((await client.get("/dancers")).json()) == 2

@pytest.mark.parametrize("name", ["Dune", "Lyra"])
async def test_add(client, arena, name):
    assert (await client.get("/dancers")).status_code == 200
    assert (await client.post("/dancers")).status_code == 405
    assert (await client.post(f"/dancers/{name}")).status_code == 201
    assert len(arena.requests) == 3
    assert len(arena.changes()) == 1

async def test_add_by_hand(client, arena):
    async with arena.expect_changes(ignore="*"):
        with arena.max_statements(2):
            await client.post("/dancers/Sky")
"""


def section(output: str) -> list[str]:
    lines = output.partition("arena: replay")[2].splitlines()
    return [line for line in lines if re.match("[A-Z]+ /", line)]


WRONG = (
    TESTS.replace("/dancers/{name}", "/twice/{name}")
    + """
from app import Dancer, app, get_db
from fastapi import Depends

@app.post("/twice/{name}", status_code=201)
async def twice(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    await db.commit()
    db.add(Dancer(name=f"{name} again"))
    await db.commit()
"""
)


@pytest.mark.parametrize("workers", [(), XDIST])
def test_a_finding_changes_no_outcome(example: Example, workers: tuple[str, ...]) -> None:
    """Each route is replayed once in each process. The summary is one."""
    project = example.with_files(test_it=WRONG.replace("== 1", "== 2"))
    run = project.run(FLAG, "--junitxml=junit.xml", *workers).expect(passed=7)
    run.says(
        "interrupted at INSERT INTO dancers",
        "answered OperationalError, dancers +1 stays, without the rest of dancers +2",
        "TornWriteWarning",
        "of 2 routes in",
    ).never_says("warnings summary", "routes in 0.00 s")
    [wrong, right] = section(run.output)
    assert wrong.startswith("POST /twice/{name}   (test_it.py::test_add")
    assert right.startswith("POST /dancers/{name}: nothing found")
    assert "arena_replay POST /twice/{name}" in (run.folder / "junit.xml").read_text()


def test_a_part_that_counts_as_the_whole_proposes_no_test(example: Example) -> None:
    """The test that is proposed counts rows, so it would pass."""
    first, _, second = WRONG.rpartition('db.add(Dancer(name=f"{name} again"))')
    renamed = "update().where(Dancer.name == name).values(name='Ada')"
    half = f"{first}await db.execute(Dancer.__table__.{renamed}){second}"
    run = example.with_files(test_it=half).run(FLAG)
    run.says("TornWriteWarning").never_says("arena.interruptions()")


FAULTS = """
from app import Base, Dancer, app, get_db
from fastapi import Depends, UploadFile
from sqlalchemy import Column, String, Table

photos = Table("photos", Base.metadata, Column("name", String))

@app.post("/photos", status_code=201)
async def grow(photo: UploadFile, db=Depends(get_db)):
    dancer = await db.get(Dancer, 1)
    dancer.name += "!"
    await db.commit()
    await db.execute(photos.insert().values(name=photo.filename))
    await db.commit()
"""
ASYNC = """
import faults

async def test_it(client_as):
    await client_as("me").post("/photos?token=key", files={"photo": ("a.txt", b"1")})
"""
SYNC = ASYNC.replace("async ", "").replace("await ", "").replace("client_as", "test_client_as")


@pytest.mark.parametrize("test", [ASYNC, SYNC])
def test_the_test_of_a_finding_fails_until_the_app_is_mended(example: Example, test: str) -> None:
    login = "def login(client, role):\n    client.headers['Authorization'] = role\n"
    project = example.with_files(faults=FAULTS, test_it=test, logins=login)
    run = project.run(FLAG, "-oarena_login=logins:login").expect(passed=1).never_says("token=key")
    [block] = re.findall(r"(?s)  as a test[^\n]+\n(.+)\n\d+ replays", run.output)
    pasted = dedent(block).replace('"…"', '{"photo": ("a.txt", b"1")}')
    project = project.with_files(test_it=f"import faults, pytest\n{pasted}")
    run = project.run("-oarena_login=logins:login").expect(status=1, failed=1, errors=1)
    run.says("RaceWarning: requests at once", "in ('nothing', 'dancers ~1, photos +1')")
    run.says("the step that lost its connection", "INSERT INTO photos (name) VALUES (?) (4 of 5")
    mended = re.sub("name .*\\n.*commit..", "name = type(dancer).name + '!'", FAULTS)
    project.with_files(faults=mended).run("-oarena_login=logins:login").expect(passed=1)


def test_ctrl_c_during_the_replays_loses_no_finding(example: Example) -> None:
    """The first route is replayed, when the second test runs again."""
    stopped = """
runs = []

@app.post("/last", status_code=201)
async def last(db=Depends(get_db)):
    db.add(Dancer(name="last"))
    await db.commit()

async def test_stop(client):
    runs.append(1)
    if len(runs) == 2:
        raise KeyboardInterrupt
    await client.post("/last")
"""
    run = example.with_files(test_it=WRONG.replace("== 1", "== 2") + stopped).run(FLAG)
    run.expect(status=2, passed=8).says("dancers +1 stays, without the rest of dancers +2")


def test_only_some_questions_and_findings(example: Example) -> None:
    project = example.with_files(test_it=WRONG.replace("== 1", "== 2"))
    run = project.run(FLAG, "-q", "-Werror", *XDIST).expect(status=1, passed=7)
    run.says("replay fails this run, by filterwarnings: TornWriteWarning of POST /twice/{name}")
    run = project.run(f"{FLAG}=races,logins").expect(passed=7).never_says("TornWrite")
    assert len(section(run.output)) == 2
    assert project.run(f"{FLAG}=race").says("--arena-replay=races").status == 4
    run = example.with_files(test_it="def test_it(test_client): test_client.get('/')").run(FLAG)
    run.expect(passed=1).says("no request of a passed test has changed a row")


FACTS = """
import json
import pytest
import redis
from app import Dancer, app, get_db
from fastapi import Depends, Request, Response

counter = redis.Redis(port=1)

@app.post("/visits/{name}")
async def visit(name: str, request: Request, answer: Response, db=Depends(get_db)):
    app.state.last = name
    db.add(Dancer(name=f"{name} {counter.incr('visits')}"))
    await db.commit()
    visits = int(request.cookies.get("visits", 0)) + 1
    answer.set_cookie("visits", str(visits))
    return visits

@pytest.fixture
def noted(arena, client, request):
    def note():
        facts = [request.node.name, str(arena.changes()), str([*map(str, arena.requests)])]
        facts += [dict(client.cookies), str(counter.get("visits")), app.state.last]
        with open("facts.jsonl", "a") as file:
            print(json.dumps(facts), file=file)
    return note

@pytest.mark.parametrize("name", ["Dune", "Lyra"])
async def test_visits(client, db_session, noted, name):
    assert (await client.post("/visits/First")).json() == 1
    noted()
    db_session.add(Dancer(name=f"{name} of the test"))
    await db_session.flush()
    assert (await client.post(f"/visits/{name}", json={})).json() == 2
    noted()
    assert (await client.post("/dancers/Last")).status_code == 201
    noted()
"""


def test_after_its_replays_a_request_finds_what_it_found_without_them(example: Example) -> None:
    """Rows, the story, Redis, cookies and the app's state."""
    pytest.importorskip("redis")
    facts = []
    for flags in (), (FLAG,):
        project = replace(example, folder=example.folder.with_name(f"run{len(flags)}"))
        run = project.with_files(test_it=FACTS).run(*flags).expect(passed=2).says("; Redis on")
        facts.append((run.folder / "facts.jsonl").read_text().splitlines())
    without, replayed = facts
    assert len(without) == 6
    assert replayed[:6] == without
    assert replayed[6:] == without[:3], "the first test has run again"


@pytest.mark.parametrize("isolation", ["clone", "rollback"])
def test_an_isolation_without_levels_leaves_the_question_of_logins(
    example: Example, isolation: str
) -> None:
    """The report says why."""
    tests = TESTS.replace('{name}"))', '{name}", headers={"Authorization": "me"}))')
    project = on_postgresql(example, test_it=tests)
    arguments = ("test_it.py::test_add", FLAG, f"--arena-isolation={isolation}")
    project.run(*arguments).expect(passed=2).says(
        "POST /dancers/{name}   (test_it.py::test_add",
        "without its login: 201, dancers +1",
        f"only asked without its login: the isolation {isolation}",
    )


@pytest.mark.parametrize("variable", ["", FLAG])
def test_a_path_behind_the_flag_is_a_path(example: Example, variable: str) -> None:
    tests = "async def test_it(client):\n    await client.post('/dancers/Ada')\n"
    project = example.with_files(test_it=tests, test_other=tests)
    words = ("test_it.py",) if variable else (FLAG, "test_it.py")
    run = project.run(*words, env={"PYTEST_ADDOPTS": variable}).expect(passed=1)
    run.says("POST /dancers/{name}: nothing found")


STRANGE = """
import asyncio
import socket
import uuid
from contextlib import asynccontextmanager
from app import Dancer, app, get_db
from fastapi import Depends, HTTPException
from fastapi.responses import StreamingResponse

async def add(db, name):
    db.add(Dancer(name=name))
    await db.commit()

@app.post("/endless")
async def endless(db=Depends(get_db)):
    await add(db, "Endless")
    async def parts():
        while True:
            yield b"part"
            await asyncio.sleep(0.01)
    return StreamingResponse(parts())

@app.post("/far")
async def far(db=Depends(get_db)):
    await add(db, "Far")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # sends nothing

@app.post("/token")
async def token(db=Depends(get_db)):
    await add(db, uuid.uuid4().hex)
    await db.execute(Dancer.__table__.select())

TIMES = []
LOCK = asyncio.Lock()
LOCK._loop = "as after a wait in another loop"

@app.post("/locked")
async def locked(db=Depends(get_db)):
    await db.execute(Dancer.__table__.select())
    async with LOCK:
        await add(db, "Locked")

@app.post("/differs")
async def differs(db=Depends(get_db)):
    TIMES.append(1)
    for _ in TIMES:
        await db.connection()
        await db.execute(Dancer.__table__.select().limit(len(TIMES)))
    await add(db, "Differs")

@app.post("/many")
async def many(db=Depends(get_db)):
    db.add_all(Dancer(name=f"dancer {number}") for number in range(1001))
    await db.commit()

@app.post("/again")
async def again(db=Depends(get_db)):
    TIMES.append(1)
    await add(db, "Again")
    if len(TIMES) > 1:
        raise HTTPException(409)

@app.post("/named")
async def named(db=Depends(get_db)):
    dancer = await db.get(Dancer, 1)
    if dancer.name == "Sky":
        raise HTTPException(409)
    dancer.name = "Sky"
    await db.commit()

async def send_mail():
    await asyncio.sleep(0.5)

@app.post("/later")
async def later(db=Depends(get_db)):
    app.state.task = asyncio.create_task(send_mail())
    await add(db, "Later")

@app.post("/slow")
@app.post("/long")
async def long(db=Depends(get_db)):
    await add(db, "Long")

@asynccontextmanager
async def lifespan(app):
    app.state.queue = asyncio.Queue()
    async def work():
        while name := await app.state.queue.get():
            async for db in get_db():
                await add(db, name)
            app.state.queue.task_done()
    app.state.worker = asyncio.create_task(work())
    yield

app.router.lifespan_context = lifespan

@app.post("/queued")
async def queued(db=Depends(get_db)):
    await add(db, "Queued")
    app.state.queue.put_nowait("Worked")

@app.post("/waits")
async def waits(db=Depends(get_db)):
    await add(db, "Waits")
    await asyncio.sleep(1.2)

SLOT = asyncio.Semaphore(1)

@app.post("/kept")
async def kept(db=Depends(get_db)):
    await SLOT.acquire()
    await add(db, uuid.uuid4().hex)
    SLOT.release()

@app.post("/limited")
async def limited(db=Depends(get_db)):
    TIMES.append(1)
    if len(TIMES) > 5:
        raise HTTPException(429)
    await add(db, "Limited")
"""
STRANGE_TESTS = """
import pytest
import pytest_arena._run._replay as replay
import strange

replay._LONGEST = replay.Replay.longest = 2  # in place of ten seconds

@pytest.fixture(autouse=True)
def first():
    strange.TIMES.clear()

@pytest.mark.parametrize("path", [
    "far", "differs", "limited", "token", "many", "again", "waits", "named", "later", "locked",
    "slow", "long", "queued",
])
async def test_it(client, path, monkeypatch):
    if path == "slow":
        monkeypatch.setattr(replay, "_SLOW", 0)  # in place of two seconds
    if path == "long":
        monkeypatch.setattr(replay, "_MOST_STEPS", 1)  # in place of a hundred
    assert (await client.post(f"/{path}")).status_code == 200
    await strange.app.state.queue.join()

async def test_endless(client):
    async with client.stream("POST", "/endless") as answer:
        assert answer.status_code == 200

RUNS = []

async def test_that_fails_at_its_second_run(client):
    RUNS.append(1)
    assert len(RUNS) == 1
    assert (await client.post("/dancers/Once")).status_code == 201

async def test_that_waits_for_ever_at_its_second_run(client):
    assert (await client.post("/kept")).status_code == 200
"""


def test_each_route_that_is_not_replayed_has_a_reason(example: Example) -> None:
    run = example.with_files(strange=STRANGE, test_it=STRANGE_TESTS).run(FLAG).expect(passed=16)
    run.says("LeakWarning: interrupted at", "no answer within ten seconds")
    lines = dict(line.split(": ", 1) for line in section(run.output) if ": " in line)
    assert "192.0.2.1:9, by strange.py:" in lines["POST /far"]
    assert "statements differ" in lines["POST /differs"]
    assert "nothing found" in lines["POST /token"]
    assert "limits the number" in lines["POST /limited"]
    assert "no end" in lines["POST /endless"]
    assert "more than 1,000 rows" in lines["POST /many"]
    assert "answers 409 when it is sent again" in lines["POST /again"]
    assert "one after the other 200 and 409, with the same rows. next" in lines["POST /named"]
    assert "still runs 0.1 s after the answer, strange.py" in lines["POST /later"]
    assert "needs arena_lifespan = session" in lines["POST /locked"]
    assert "waits for something else" in lines["POST /waits"]
    assert "takes more than two seconds" in lines["POST /slow"]
    assert "sends more than a hundred statements" in lines["POST /long"]
    assert "a task of a lifespan or wide fixture works, strange.py" in lines["POST /queued"]
    assert "fails when it runs again" in lines["POST /dancers/{name}"]


FLASK = """
import os
from flask import Flask, abort, request
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker

class Base(DeclarativeBase): ...

class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

Session = scoped_session(sessionmaker(create_engine("sqlite:///dev.db")))
app = Flask(__name__)

@app.teardown_appcontext
def remove(error):
    Session.remove()

@app.post("/twice/<name>")
def twice(name):
    for each in name, request.get_json()["name"]:
        Session.add(Dancer(name=each))
        Session.commit()
    return "", 201

@app.post("/dancers/<name>")
def add(name):
    if "Authorization" not in request.headers:
        abort(401)
    Session.add(Dancer(name=name))
    Session.commit()
    return "", 201
"""
FLASK_TESTS = """
import pytest
from app import Session, app, Dancer

@pytest.mark.parametrize("path", ["/twice/Dune", "/dancers/Dune"])
def test_it(arena, CLIENT, path):
    answer = CLIENT.post(path, json={"name": "Lyra"}, headers={"Authorization": "me"})
    assert answer.status_code == 201
    assert len(arena.changes()) == 1 + path.startswith("/twice")

@pytest.fixture
def own():
    with app.app_context():
        yield app.test_client()
"""


@pytest.mark.parametrize("client", ["own", "test_client"])
def test_requests_of_flask_are_replayed(example: Example, client: str) -> None:
    """By Flask's own client, and by that of pytest-arena."""
    files = {"app": FLASK, "seed": "def seed(session): ...\n"}
    files["test_it"] = FLASK_TESTS.replace("CLIENT", client)
    run = example.with_files(**files).run(FLAG).expect(passed=2)
    assert "POST /dancers/<name>: nothing found" in " ".join(section(run.output))
    run.says(
        "POST /twice/<name>   (test_it.py::test_it",
        "interrupted at INSERT INTO dancers",
        "without its login: 201, dancers +2",
        """test_client.post("/twice/Dune", json={'name': 'Lyra'}, """
        """headers={'authorization': '…'})""",
    )


LITESTAR = """
from litestar import Litestar, Request, post
from litestar.exceptions import HTTPException
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

maker = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///dev.db"))

class Base(DeclarativeBase): ...

class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    age: Mapped[int]

@post("/dancers")
async def add(request: Request) -> None:
    if "authorization" not in request.headers:
        raise HTTPException(status_code=401)
    async with maker.begin() as session:
        session.add(Dancer(age=1))

@post("/dancers/{number:int}")
async def grow(number: int) -> None:
    async with maker.begin() as session:
        dancer = await session.get_one(Dancer, number)
        dancer.age += 1

app = Litestar([add, grow])
"""
LITESTAR_TESTS = """
HEADERS = {"Authorization": "me"}

async def test_async(client):
    assert (await client.post("/dancers", headers=HEADERS)).status_code == 201
    assert (await client.post("/dancers/1", headers=HEADERS)).status_code == 201

def test_sync(test_client):
    assert test_client.post("/dancers", headers=HEADERS).status_code == 201
    assert test_client.post("/dancers/1", headers=HEADERS).status_code == 201
"""


@pytest.mark.parametrize("test", ["test_async", "test_sync"])
def test_requests_of_litestar_are_replayed(example: Example, test: str) -> None:
    """Litestar keeps the headers of a request in its scope."""
    files = {"app": LITESTAR, "test_it": LITESTAR_TESTS, "seed": "async def seed(session): ..."}
    run = example.with_files(**files).run(f"test_it.py::{test}", FLAG, "-Wignore")
    run.expect(passed=1).says(
        "POST /dancers: nothing found",
        "Only at once: ~ dancers id=1  age 1 → 2, not ~ dancers id=1  age 1 → 3",
        "without its login: 201, dancers ~1",
    )


INTERRUPTIONS = """
import pytest

async def test_all_or_nothing(client, arena):
    counts = []
    async for attempt in arena.interruptions():
        await attempt(client.post("/dancers/Dune"))
        counts.append(len(arena.changes()))
    assert counts == [1, 0, 0]

def test_sync(test_client, arena):
    answers = []
    for attempt in arena.interruptions():
        answers.append(attempt(lambda: test_client.post("/dancers/Dune")))
    assert answers[0].status_code == 201
    assert isinstance(answers[1], Exception)
    assert len(answers) == 3

async def test_a_request_that_fails_by_itself(client, arena):
    async for attempt in arena.interruptions():
        await attempt(client.post("/none"))

async def test_no_statement(client, arena):
    async for attempt in arena.interruptions():
        await attempt(client.get("/openapi.json"))
"""


def test_interruptions_by_hand(example: Example) -> None:
    """The first pass is whole."""
    run = example.with_files(test_it=INTERRUPTIONS).run().expect(status=1, passed=2, failed=2)
    run.says("POST /none 404", "GET /openapi.json 200", "[A502]")
