"""Flask, and other WSGI apps: unmodified, on the database of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example import CONFIG, Example

if TYPE_CHECKING:
    from pathlib import Path

# As the documentation of Flask has it: a global engine, a session for each thread.
APP = """
from flask import Flask, abort, jsonify
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker

engine = create_engine("sqlite:///dev.db")
Session = scoped_session(sessionmaker(engine))


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


app = Flask(__name__)


@app.teardown_appcontext
def remove(error):
    Session.remove()


@app.get("/dancers")
def dancers():
    return jsonify([one.name for one in Session.scalars(select(Dancer).order_by(Dancer.id))])


@app.post("/dancers/<name>")
def add(name):
    Session.add(Dancer(name=name))
    Session.commit()
    return name, 201


@app.post("/left/<name>")
def leave(name):
    Session.add(Dancer(name=name))
    return name, 201


@app.post("/lost/<name>")
def lose(name):
    Session.add(Dancer(name=name))
    Session.flush()
    return name, 201


@app.post("/broken")
def broken():
    raise ValueError("no dancer")


@app.post("/kept")
def keep():
    app.kept = engine.connect()
    app.kept.execute(select(Dancer))
    return "kept"
"""
SEED = """
from app import Dancer

def seed(session):
    session.add(Dancer(name="Sand"))
"""


@pytest.fixture
def flask(tmp_path: Path) -> Example:
    """A Flask app with a global engine, and one row for each test."""
    return Example(tmp_path / "project", {"app.py": APP, "seed.py": SEED, "pytest.ini": CONFIG})


EACH_CLIENT = """
import httpx2
import pytest

from app import Dancer, app

turns = pytest.mark.parametrize("turn", range(2))


def committed(db_session):
    return [dancer.name for dancer in db_session.query(Dancer).order_by(Dancer.id)]


@turns
def test_the_sync_client(test_client, db_session, arena, turn):
    db_session.add(Dancer(name="Dune"))
    assert test_client.get("/dancers").json() == ["Sand", "Dune"]
    assert test_client.post("/dancers/Storm").status_code == 201
    assert committed(db_session) == ["Sand", "Dune", "Storm"]
    assert [change.after["name"] for change in arena.changes()] == ["Dune", "Storm"]
    assert [request.path for request in arena.requests] == ["/dancers", "/dancers/Storm"]


@turns
async def test_the_async_client(client, db_session, turn):
    db_session.add(Dancer(name="Dune"))
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]
    assert (await client.post("/dancers/Storm")).status_code == 201
    assert committed(db_session) == ["Sand", "Dune", "Storm"]


@turns
def test_the_live_server(live_server, db_session, arena, turn):
    db_session.add(Dancer(name="Dune"))
    assert httpx2.get(f"{live_server.url}/dancers").json() == ["Sand", "Dune"]
    assert live_server.client().post("/dancers/Storm").status_code == 201
    assert committed(db_session) == ["Sand", "Dune", "Storm"]
    assert len(arena.requests) == 2


@turns
def test_flasks_own_client(db_session, arena, turn):
    db_session.add(Dancer(name="Dune"))
    with app.test_client() as own:
        assert own.get("/dancers").json == ["Sand", "Dune"]
        assert own.post("/dancers/Storm").status_code == 201
    assert committed(db_session) == ["Sand", "Dune", "Storm"]
    assert [request.status for request in arena.requests] == [200, 201]
"""


@pytest.mark.slow
def test_each_client_sees_the_tests_rows(flask: Example) -> None:
    """P1 and P2, for the clients of arena's and for Flask's own."""
    run = flask.with_files(test_clients=EACH_CLIENT).run().expect(passed=8)
    assert not (run.folder / "dev.db").exists()


def test_the_sync_client_asks_an_unmodified_app(flask: Example) -> None:
    """The shortest of the stories above; arena_lifespan = session runs it as well."""
    tests = EACH_CLIENT.replace("import httpx2\n", "")
    run = flask.with_files(test_clients=tests).run("-k", "sync_client", "-oarena_lifespan=session")
    run.expect(passed=4)


FAILING = """
import pytest

def test_a_write_that_is_lost(test_client):
    assert test_client.post("/lost/Dune").status_code == 201
    assert test_client.post("/left/Dune").status_code == 201
    assert test_client.get("/dancers").json() == ["Sand"]


def test_that_fails(test_client):
    test_client.post("/dancers/Dune")
    assert test_client.post("/broken").status_code == 500
    raise AssertionError("to see its report")


@pytest.mark.parametrize("turn", range(2))
def test_that_leaves_a_connection_in_a_thread_of_the_app(test_client, turn):
    assert test_client.post("/kept").status_code == 200


def test_that_breaks_in_testing(test_client):
    from app import app
    app.testing = True
    with pytest.raises(ValueError, match="no dancer"):
        test_client.post("/broken")
"""


@pytest.mark.slow
def test_what_the_app_does_wrong_is_told(flask: Example) -> None:
    """The story, the server's traceback by Flask's log, a lost write, a connection kept."""
    run = flask.with_files(test_failing=FAILING).run()
    run.expect(status=1, passed=4, failed=1, errors=2)
    run.says("POST /left/Dune 201 added Dancer, and never flushed or committed it")
    run.says("POST /lost/Dune 201 wrote dancers (1 row) and never committed it", "Session.flush()")
    run.says("POST /dancers/Dune 201 dancers +1", "raised ValueError: no dancer (app.py:")
    assert run.output.count("app.kept = engine.connect()") >= 2


OWN_CLIENT = """
import pytest
from app import app, engine
from sqlalchemy import text


@app.get("/twice")
def twice():
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.execute(text("SELECT 2"))
    return "2"


def test_an_answer():
    assert app.test_client().post("/broken").status_code == 200


def test_an_exception(monkeypatch):
    monkeypatch.setattr(app, "testing", True)
    app.test_client().post("/broken")


def test_statements_are_counted(arena):
    with arena.max_statements(1):
        app.test_client().get("/twice")
"""


@pytest.mark.slow
def test_what_flasks_own_client_is_answered_is_told(flask: Example) -> None:
    """The exception behind a 500, the one that reaches the test, and the statements."""
    run = flask.with_files(test_own=OWN_CLIENT).run("--tb=short").expect(status=1, failed=3)
    number = APP.splitlines().index('    raise ValueError("no dancer")') + 1
    assert run.output.count(f"    raised ValueError: no dancer (app.py:{number})\n") == 2
    run.says("POST /broken 500", "POST /broken raised ValueError", "frames of")
    run.says("2 statements were sent", "GET /twice", "SELECT 2")


FLASK_SQLALCHEMY = """
from flask import Flask, jsonify
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Dancer(db.Model):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///dev.db"
    db.init_app(app)

    @app.get("/dancers")
    def dancers():
        return jsonify([one.name for one in db.session.scalars(db.select(Dancer))])

    @app.post("/dancers/<name>")
    def add(name):
        db.session.add(Dancer(name=name))
        db.session.commit()
        return name, 201

    return app
"""
OF_A_FACTORY = """
import pytest
from app import Dancer, db


@pytest.mark.parametrize("turn", range(2))
def test_rows_of_the_session(test_client, db_session, turn):
    db_session.add(Dancer(name="Dune"))
    assert test_client.get("/dancers").json() == ["Sand", "Dune"]
    assert test_client.post("/dancers/Storm").status_code == 201
    assert db_session.query(Dancer).count() == 3


@pytest.mark.parametrize("turn", range(2))
def test_rows_of_the_apps_own_session(arena_app, arena, turn):
    with arena_app.app_context():
        db.session.add(Dancer(name="Dune"))
        db.session.commit()
    assert arena_app.test_client().get("/dancers").json == ["Sand", "Dune"]
    assert len(arena.requests) == 1
"""


@pytest.mark.slow
def test_flask_sqlalchemy_with_a_factory(flask: Example) -> None:
    """Its engine is an ordinary one, of each app that the factory makes."""
    project = flask.with_files(app=FLASK_SQLALCHEMY, test_factory=OF_A_FACTORY)
    project = project.change("pytest.ini", "app:app", "app:create_app")
    # No app of the factory disposes of its engine, which Python 3.13 notices.
    run = project.run("-W", "ignore::ResourceWarning").expect(passed=4)
    assert not [*run.folder.rglob("dev.db")]


IN_A_SESSIONS_CONTEXT = """
import pytest
from app import Dancer, create_app, db


@pytest.fixture(scope="session")
def app():
    app = create_app()
    with app.app_context():
        yield app


@pytest.fixture(scope="class")
def sand(app):
    dancer = db.session.scalars(db.select(Dancer)).one()
    return dancer


def names():
    return db.session.scalars(db.select(Dancer.name)).all()


@pytest.mark.parametrize("turn", range(2))
def test_requests(app, turn):
    client = app.test_client()
    assert client.post("/dancers/Storm").status_code == 201
    assert client.get("/dancers").json == ["Sand", "Storm"]


@pytest.mark.parametrize("turn", range(2))
def test_rows(app, turn):
    db.session.add(Dancer(name="Dune"))
    db.session.commit()
    assert names() == ["Sand", "Dune"]


@pytest.fixture(scope="module")
def wide_client(app):
    return app.test_client()


@pytest.mark.parametrize("turn", range(2))
def test_cookies(wide_client, turn):
    assert wide_client.get_cookie("login") is None
    wide_client.set_cookie("login", "Sand")


class TestWithRowOfAFixture:
    @pytest.mark.parametrize("turn", range(2))
    def test_rows(self, sand, turn):
        assert sand.name == "Sand"
        assert names() == ["Sand"]


def test_leaves_a_transaction(app):
    db.session.add(Dancer(name="Lost"))
    db.session.flush()


def test_after_it(app):
    assert names() == ["Sand"]
"""


@pytest.mark.slow
def test_a_context_of_a_session_fixture_holds_no_session_of_a_test(flask: Example) -> None:
    """Flask-SQLAlchemy removes its session when the context ends. A transaction is a leak."""
    project = flask.with_files(app=FLASK_SQLALCHEMY, test_context=IN_A_SESSIONS_CONTEXT)
    project = project.change("pytest.ini", "app:app", "app:create_app")
    run = project.run("-p", "no:randomly", "-W", "ignore::ResourceWarning")
    run.expect(passed=10, errors=1, status=1)
    run.says("ERROR test_context.py::test_leaves_a_transaction")


MOUNTED = """
import warnings
from a2wsgi import WSGIMiddleware
from fastapi import FastAPI
import app as flask_app

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.middleware.wsgi import WSGIMiddleware as OldMiddleware

app = FastAPI()
app.mount("/new", WSGIMiddleware(flask_app.app))
app.mount("/old", OldMiddleware(flask_app.app))
"""
OF_MOUNTED = """
import pytest
from app import Dancer


@pytest.mark.parametrize("way", ["old", "new", "old", "new"])
def test_a_mounted_app(test_client, db_session, arena, way):
    db_session.add(Dancer(name="Dune"))
    assert test_client.get(f"/{way}/dancers").json() == ["Sand", "Dune"]
    assert test_client.post(f"/{way}/dancers/Storm").status_code == 201
    assert len(arena.changes()) == 2


@pytest.mark.parametrize("way", ["old", "new", "old", "new"])
def test_a_mounted_app_keeps_a_connection(test_client, way):
    assert test_client.post(f"/{way}/kept").status_code == 200
"""


@pytest.mark.slow
def test_a_wsgi_app_that_is_mounted(flask: Example) -> None:
    """By Starlette's middleware or a2wsgi's, in threads that live longer than their tests."""
    project = flask.with_files(mounted=MOUNTED, test_mounted=OF_MOUNTED)
    project = project.change("pytest.ini", "arena_app = app:app", "arena_app = mounted:app")
    project.run().expect(status=1, passed=8, errors=4)


@pytest.mark.slow
def test_on_postgresql(flask: Example) -> None:
    """By psycopg, which a sync app has."""
    url = "postgresql+psycopg://me:s3cret@db.example.org/shop"
    project = flask.change("app.py", "sqlite:///dev.db", url).with_files(test_clients=EACH_CLIENT)
    project = project.change("pytest.ini", "[pytest]", "[pytest]\narena_database = own")
    project.run().expect(passed=8)


SCENARIO = """
Feature: Dancers

  Scenario: A dancer joins
    Given a crew
    When Storm joins
    Then the crew has a dancer more
"""
PROOF = """
import pytest
from app import Dancer


@pytest.mark.scenario("A dancer joins")
def test_it(test_client, db_session):
    db_session.add(Dancer(name="Dune"))
    assert test_client.post("/dancers/Storm").status_code == 201
    assert test_client.get("/dancers").json() == ["Sand", "Dune", "Storm"]
"""


@pytest.mark.slow
def test_a_scenario_is_proven(flask: Example) -> None:
    """The requests of arena's clients are evidence."""
    project = flask.with_files(test_proof=PROOF).with_paths({"crew.feature": SCENARIO})
    project = project.change("pytest.ini", "[pytest]", "[pytest]\narena_specs = crew.feature")
    project.run("--scenarios=strict").expect(passed=1).says("1 of 1 proven")
