"""A test that only sees a 500 is shown what the app has raised."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pytest_arena._changes import without_values

if TYPE_CHECKING:
    from tests.example import Example

BREAKS = """

@app.get("/breaks")
async def breaks():
    return {}["nothing of that name"]
"""
TESTS = """
async def test_async(arena):
    client = arena.client(raise_app_exceptions=False)
    assert (await client.get("/breaks")).status_code == 200


def test_sync(arena):
    client = arena.test_client(raise_app_exceptions=False)
    assert client.get("/breaks").status_code == 200


async def test_that_raises(client):
    await client.get("/breaks")


async def test_that_expects_it(arena):
    client = arena.client(raise_app_exceptions=False)
    assert (await client.get("/breaks")).status_code == 500
"""


@pytest.mark.parametrize("handled", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_failed_test_shows_the_servers_traceback(example: Example, *, handled: bool) -> None:
    """Once, with the app's own lines; also where the app answers its errors by a handler."""
    more = (
        "\n\n@app.exception_handler(Exception)\nasync def oh(request, error):\n"
        "    from fastapi.responses import JSONResponse\n    return JSONResponse({}, 500)\n"
    )
    app = example.files["app.py"] + BREAKS + more * handled
    run = example.with_files(app=app, test_it=TESTS).run().expect(1, failed=3, passed=1)
    assert run.output.count("arena: the server's traceback, GET /breaks") == 2
    run.says("in breaks", "KeyError: 'nothing of that name'")


MASKED = """

class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    secret_disease: Mapped[str] = mapped_column(unique=True)


@app.post("/users")
async def add_user(db=Depends(get_db)):
    for _ in range(2):
        db.add(User(name="Sand", password_hash="xyz]def"))
        await db.flush()


@app.post("/patients")
async def add_patient(db=Depends(get_db)):
    await db.execute(insert(Patient), [{"secret_disease": "flu"}, {"secret_disease": "flu"}])


@app.post("/sand")
async def add_sand(db=Depends(get_db)):
    db.add(Dancer(id=1, name="Sand"))
    await db.commit()
"""
MASKED_TESTS = """
import pytest


@pytest.mark.parametrize("path", ["/users", "/patients", "/sand"])
@pytest.mark.parametrize("raises", [True, False])
def test_it(arena, path, raises):
    client = arena.test_client(raise_server_exceptions=raises)
    assert client.post(path).status_code == 200
"""


@pytest.mark.slow
def test_parameters_of_a_secret_column_are_hidden(example: Example) -> None:
    """Both in the server's traceback and in the test's, whose library frames are folded."""
    app = example.files["app.py"] + MASKED
    app = app.replace("import select", "import insert, select")
    files = example.with_files(app=app, test_it=MASKED_TESTS)
    run = files.run("--tb=short").expect(1, failed=6)
    assert run.output.count("arena: the server's traceback") == 3
    assert run.output.count("[parameters: ***]") == 4, run.output
    assert run.output.count("[parameters: (1, 'Sand')]") == 2, run.output
    run.never_says("xyz", "def'", "flu'")


@pytest.mark.parametrize(
    "text, shown",
    [
        (
            "[SQL: UPDATE users\nSET api_key=?]\n[parameters: ('xyz',)]\n(Background on it)",
            "[SQL: UPDATE users\nSET api_key=?]\n[parameters: ***]\n(Background on it)",
        ),
        ("[SQL: SELECT flu]\n[parameters: (1,)]", "[SQL: SELECT flu]\n[parameters: (1,)]"),
        ("Key (name, pin)=(Sand, 1234) exists", "Key (name, pin)=(***) exists"),
        ("Key (name)=(Sand) exists", "Key (name)=(Sand) exists"),
        ("Failing row contains (1, flu).", "Failing row contains (***)."),
    ],
)
def test_what_is_hidden_in_the_text_of_an_error(text: str, shown: str) -> None:
    """PostgreSQL names no columns of a failing row."""
    assert without_values(text) == shown


UNABLE = """
async def test_async(client_as):
    await client_as("staff").get("/dancers")  # the user's line


def test_sync(test_client_as):
    test_client_as("staff").get("/dancers")  # the user's line
"""
CRASHES = """
def pytest_runtest_logreport(report):
    if report.failed:
        print("crash in", report.longrepr.reprcrash.path)
"""


@pytest.mark.slow
def test_an_error_of_a_client_is_shown_at_the_line_that_called_it(example: Example) -> None:
    """Neither the way through the HTTP library nor ours; tools that mark lines mark this one."""
    logs_in = example.change("pytest.ini", "[pytest]", "[pytest]\narena_login = users:login")
    login = "def login(client, role):\n    raise ValueError('wrong password')\n"
    files = logs_in.with_files(users=login, test_it=UNABLE, conftest=CRASHES)
    run = files.run("-s").expect(1, failed=2)
    assert run.output.count("# the user's line") == 2
    assert run.output.count(f"crash in {files.folder / 'test_it.py'}") == 2
    run.says("the login as 'staff' failed: ValueError: wrong password")
    run.never_says("site-packages", "src/pytest_arena")


TWICE = """
import pytest
from sqlalchemy import text
from app import app, engine


@app.post("/same")
async def same():
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO dancers (id, name) VALUES (1, 'same')"))


@pytest.fixture
async def twice(client):
    await client.post("/same")


async def test_async(client):
    await client.post("/same")


def test_sync(test_client):
    test_client.post("/same")


def test_own():
    from starlette.testclient import TestClient

    TestClient(app).post("/same")


async def test_in_a_fixture(twice):
    pass


async def test_of_its_own(client):
    await client.get("/dancers")
    raise ValueError("no request") from LookupError("nor this")
"""
FOLDED = r" +\d+ frames of httpx2?, .*: `--full-trace` shows them"


@pytest.mark.slow
def test_frames_between_the_test_and_the_app_are_folded(example: Example) -> None:
    """The test's line and the app's are shown, with one line for the libraries between them."""
    files = example.with_files(test_it=TWICE)
    run = files.run("--tb=short").expect(1, failed=4, errors=1)
    run.never_says("site-packages", "src/pytest_arena")
    assert len(re.findall(f"(?m)^{FOLDED}$", run.output)) == 4
    assert len(re.findall(r"(?m)^E {3}sqlite3.IntegrityError: UNIQUE", run.output)) == 4
    assert len(re.findall(r"(?m)^E {3}sqlalchemy.exc.IntegrityError: ", run.output)) == 4
    line = next(n for n, text in enumerate(TWICE.splitlines(), 1) if "INSERT" in text)
    told = r"raised IntegrityError: \(sqlite3.IntegrityError\) UNIQUE constraint failed: dancers.id"
    assert len(re.findall(rf"{told} \(test_it.py:{line}\)", run.output)) == 4
    run.says("ValueError: no request")


OWN_COMMIT = """
from app import Dancer


async def test_async(client, db_session):
    db_session.add(Dancer(id=1, name="same"))
    await client.get("/dancers")  # the user's line


def test_sync(test_client, db_session):
    db_session.add(Dancer(id=1, name="same"))
    test_client.get("/dancers")  # the user's line
"""


@pytest.mark.slow
def test_an_error_of_the_commit_before_a_request_ends_at_the_tests_line(example: Example) -> None:
    """The frames of the HTTP library, pytest-arena and SQLAlchemy are one line."""
    files = example.with_files(test_it=OWN_COMMIT)
    run = files.run().expect(1, failed=2)
    run.never_says("site-packages", "src/pytest_arena")
    assert run.output.count("# the user's line") == 2
    assert len(re.findall(f"(?m)^{FOLDED}$", run.output)) == 2, run.output
    assert len(re.findall(r"(?m)^E {3}sqlalchemy.exc.IntegrityError: ", run.output)) == 2
    run.says("commits the test's pending changes of db_session before each request")
    files.run("--full-trace").expect(1, failed=2).says("sqlalchemy/orm/session.py")


WITHOUT_A_REQUEST = """
import json
import pytest
from app import Dancer


@pytest.fixture
async def ruby(db_session):
    db_session.add(Dancer(id=1, name="Ruby"))
    await db_session.commit()  # the user's line


async def test_fixture(ruby):
    pass


async def test_body(db_session):
    db_session.add(Dancer(id=1, name="Ruby"))
    await db_session.commit()  # the user's line


def test_sync(db_session):
    db_session.add(Dancer(id=1, name="Ruby"))
    db_session.commit()  # the user's line


def test_of_another_library():
    json.loads("{")
"""
SQL_FOLDED = r" +\d+ frames of sqlalchemy, .*: `--full-trace` shows them"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_fixture", "test_body", "test_sync"])
def test_an_error_of_sqlalchemy_without_a_request_is_folded(example: Example, name: str) -> None:
    """In a fixture and in a test's own body. The user's line and the message are shown."""
    files = example.with_files(test_it=WITHOUT_A_REQUEST)
    run = files.run("-k", name)
    assert run.status == 1
    run.says("# the user's line", "E   sqlalchemy.exc.IntegrityError: (sqlite3.IntegrityError)")
    run.never_says("site-packages", "src/pytest_arena")
    assert len(re.findall(f"(?m)^{SQL_FOLDED}$", run.output)) == 2, run.output
    assert len(run.output.splitlines()) < 50, run.output


@pytest.mark.slow
def test_only_errors_of_sqlalchemy_are_folded_without_a_request(example: Example) -> None:
    """An error of another library is shown as pytest shows it, and each one by `--full-trace`."""
    files = example.with_files(test_it=WITHOUT_A_REQUEST)
    run = files.run("-k", "test_of_another_library").expect(1, failed=1)
    run.says("json/decoder.py").never_says("shows them")
    run = files.run("--full-trace", "-k", "test_fixture").expect(1, errors=1)
    run.says("sqlalchemy/orm/session.py").never_says("shows them")


FROM_ITSELF = """
def test_from_itself():
    error = LookupError("no dancer")
    raise error from error
"""


@pytest.mark.slow
def test_an_error_may_be_its_own_cause(example: Example) -> None:
    """The run ends, and the error is shown."""
    run = example.with_files(test_it=FROM_ITSELF).run().expect(1, failed=1)
    run.says("E LookupError: no dancer")


@pytest.mark.slow
def test_all_frames_are_shown_where_that_is_wanted(example: Example) -> None:
    """Frames are shown as pytest shows them."""
    files = example.with_files(test_it=TWICE)
    for option in ("--full-trace", "--tb=native"):
        run = files.run(option, "-k", "test_async").expect(1, failed=1)
        run.says("/fastapi/routing.py").never_says("shows them")


HANDLED = """

import logging
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError


class NoSand(Exception):
    pass


class Mute(NoSand):
    def __str__(self):
        raise LookupError("no words")


@app.get("/mute")
async def mute():
    raise Mute


@app.exception_handler(NoSand)
async def answer_no_sand(request, error):
    return JSONResponse({}, 500)


@app.exception_handler(SQLAlchemyError)
def answer_conflict(request, error):
    return JSONResponse({}, 409)


@app.get("/sand")
async def sand():
    raise NoSand("the sack is empty")


@app.get("/twice")
async def twice(db=Depends(get_db)):
    db.add(Dancer(name="Sand"))
    await db.commit()


@app.get("/later")
async def later():
    try:
        raise TimeoutError("no answer")
    except TimeoutError as error:
        raise HTTPException(503, "later") from error


@app.get("/logged")
async def logged():
    try:
        raise LookupError("no song")
    except LookupError:
        logging.getLogger("app").error("no dance")
    return JSONResponse({}, 500)


@app.get("/swallowed")
async def swallowed(db=Depends(get_db)):
    try:
        await twice(db)
    except SQLAlchemyError:
        return JSONResponse({}, 500)


@app.get("/busy/{status}")
async def busy(status: int):
    if status == 404:
        raise HTTPException(404)
    logging.getLogger("app").error("it is busy")
    return JSONResponse({}, status)
"""
HANDLED_TESTS = """
import pytest
from app import app

PATHS = ["sand", "twice", "later", "logged", "swallowed"]


@pytest.mark.parametrize("path", PATHS)
async def test_async(client, path):
    assert (await client.get(f"/{path}")).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_sync(test_client, path):
    assert test_client.get(f"/{path}").status_code == 200


async def test_mute(client):
    assert (await client.get("/mute")).status_code == 200


def test_own():
    from starlette.testclient import TestClient

    assert TestClient(app).get("/sand").status_code == 200


@pytest.mark.parametrize("status", [404, 503])
async def test_an_answer_that_is_meant(client, status):
    try:
        raise ValueError("of the test")
    except ValueError:
        assert (await client.get(f"/busy/{status}")).status_code == 200
"""


@pytest.mark.slow
def test_the_exception_behind_an_answer_is_named(example: Example) -> None:
    """Where the app's handler answers it, where it is logged, and where a statement raised it."""
    app = example.files["app.py"] + HANDLED
    run = example.with_files(app=app, test_it=HANDLED_TESTS).run("--tb=short")
    run.expect(1, failed=14)

    def place(text: str) -> str:
        numbers = [number for number, line in enumerate(app.splitlines(), 1) if text in line]
        return f"app.py:{numbers[-1]}"

    commit = [number for number, line in enumerate(app.splitlines(), 1) if ".commit()" in line][-1]
    told = {
        f"raised NoSand: the sack is empty ({place('the sack is empty')})": 3,
        "raised IntegrityError: (sqlite3.IntegrityError) UNIQUE constraint failed: dancers.name "
        f"(app.py:{commit})": 2,
        f"raised HTTPException: 503: later ({place('from error')}) "
        f"from TimeoutError: no answer ({place('no answer')})": 2,
        f"raised LookupError: no song ({place('no song')})": 2,
        f"a statement raised IntegrityError: UNIQUE constraint failed: dancers.name "
        f"(app.py:{commit})": 2,
    }
    for line, count in told.items():
        assert run.output.count(f"\n    {line}\n") == count, (line, run.output)
    assert len(re.findall("(?m)^    (?:raised|a statement raised) ", run.output)) == 12
    assert run.output.count("arena: the server's traceback, GET /sand") == 3
    run.says("in sand", "of the test", f"raised Mute ({place('raise Mute')})")


SERVICES = """

from sqlalchemy.exc import SQLAlchemyError


class ServiceError(Exception):
    pass


class StoreError(Exception):
    pass


async def store(db):
    try:
        db.add(Dancer(name="Sand"))
        await db.commit()
    except SQLAlchemyError as error:
        raise StoreError("not stored") from error


@app.post("/service")
async def service(db=Depends(get_db)):
    try:
        await store(db)
    except StoreError as error:
        raise ServiceError("no dancer") from error


@app.post("/refused")
async def refused(db=Depends(get_db)):
    try:
        await store(db)
    except StoreError as error:
        raise HTTPException(503, "later") from error


@app.post("/direct")
async def direct():
    raise ServiceError("no reason")
"""
SERVICE_TESTS = """
import pytest


async def test_service(client):
    await client.post("/service")


async def test_refused(client):
    assert (await client.post("/refused")).status_code == 201


async def test_in_an_except_block(client):
    try:
        raise ValueError("of the test")
    except ValueError:
        await client.post("/direct")
"""


@pytest.mark.slow
def test_the_innermost_cause_in_the_app_is_named(example: Example) -> None:
    """An error of a service says little. The driver's exception has passed no line of the app."""
    app = example.files["app.py"] + SERVICES
    run = example.with_files(app=app, test_it=SERVICE_TESTS).run("--tb=short").expect(1, failed=3)
    lines = app.splitlines()
    commit = max(number for number, line in enumerate(lines, 1) if ".commit()" in line)
    raised = {
        text: next(number for number, line in enumerate(lines, 1) if text in line)
        for text in ("not stored", "no dancer", "later", "no reason")
    }
    conflict = (
        "from IntegrityError: (sqlite3.IntegrityError) UNIQUE constraint failed: dancers.name "
        f"(app.py:{commit})"
    )
    of_store = f"from StoreError: not stored (app.py:{raised['not stored']}) {conflict}"
    told = [
        f"raised ServiceError: no dancer (app.py:{raised['no dancer']}) {conflict}",
        f"raised HTTPException: 503: later (app.py:{raised['later']}) {of_store}",
        f"raised ServiceError: no reason (app.py:{raised['no reason']})",
    ]
    for line in told:
        assert run.output.count(f"\n    {line}\n") == 1, (line, run.output)


LITESTAR = """
from litestar import Litestar, WebSocket, get, websocket
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine("sqlite:///dev.db")


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@get("/breaks", sync_to_thread=True)
def breaks() -> None:
    session = Session(engine)
    session.scalars(select(Dancer)).all()
    raise ValueError("no dancer")


@websocket("/song")
async def song(socket: WebSocket) -> None:
    await socket.accept()
    raise LookupError("no song")


app = Litestar([breaks, song])
"""
LITESTAR_TESTS = """
import pytest
from app import app
from litestar.testing import AsyncTestClient


async def test_async(client):
    assert (await client.get("/breaks")).status_code == 200


def test_sync(test_client):
    assert test_client.get("/breaks").status_code == 200


async def test_own():
    async with AsyncTestClient(app) as own:
        assert (await own.get("/breaks")).status_code == 200


async def test_song(client):
    async with client.websocket_connect("/song") as socket:
        assert await socket.receive_text() == "la"


async def test_that_expects_it(client):
    assert (await client.get("/breaks")).status_code == 500
"""


@pytest.mark.slow
def test_litestar_answers_exceptions_itself(example: Example) -> None:
    """They are named. What the app left to Python's reference counting is still given back."""
    files = example.with_files(app=LITESTAR, test_it=LITESTAR_TESTS)
    files = files.with_files(seed="def seed(session):\n    pass\n")
    run = files.run("--tb=short").expect(1, failed=4, passed=1)
    line = next(n for n, text in enumerate(LITESTAR.splitlines(), 1) if "no dancer" in text)
    assert run.output.count(f"    raised ValueError: no dancer (app.py:{line})\n") == 3
    assert run.output.count("arena: the server's traceback, GET /breaks") == 3
    run.says("raised LookupError: no song (app.py:")
