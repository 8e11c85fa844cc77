"""Is a request seen whoever makes it, and whoever has made the app? And another app's never?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import told
from tests.scenarios.seen import facts_of, seeing
from tests.scenarios.wsgi import WSGI_APP

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example
    from tests.scenarios.proving import Told

MADE = """
from fastapi import APIRouter, FastAPI
from litestar import Litestar, get
from starlette.middleware.cors import CORSMiddleware
from app import add, app, dancers

router = APIRouter()
router.get("/dancers")(dancers)
router.post("/dancers/{name}", status_code=201)(add)


class Own(FastAPI):
    pass


def create_app():
    made = Own()
    made.include_router(router)
    return made


def create_wrapped():
    return CORSMiddleware(create_app(), allow_origins=["*"])


cors = CORSMiddleware(app, allow_origins=["*"])


def in_a_function(inner):
    async def answering(scope, receive, send):
        await inner(scope, receive, send)
    return answering


function = in_a_function(in_a_function(app))


def create_raw():
    async def raw(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"[]"})
    return raw


def create_litestar():
    @get("/dancers", sync_to_thread=False)
    def dancers() -> list[str]:
        return []
    return Litestar([dancers], logging_config=None)
"""

TESTS = """
import httpx2
from fastapi import FastAPI
from starlette.testclient import TestClient
from app import Dancer, app, dancers, get_db, maker
import made
from made import create_app, router

early = create_app()


def asked(app):
    assert TestClient(app).get("/dancers").status_code == 200


@pytest.fixture
def storm(db_session):
    db_session.add(Dancer(name="Storm"))
    db_session.commit()


@pytest.fixture(scope="session")
def long_lived():
    return create_app()


@pytest.fixture
def ours(arena_app):
    return TestClient(arena_app)


def test_first(long_lived):
    asked(long_lived)


@proves
def test_of_a_session(long_lived, storm):
    asked(long_lived)


@proves
def test_of_the_factory(storm):
    asked(create_app())


@proves
async def test_by_a_transport(db_session):
    db_session.add(Dancer(name="Storm"))
    await db_session.commit()
    transport = httpx2.ASGITransport(create_app())
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/dancers")).json() == ["Sand", "Storm"]


@proves
def test_of_the_import(storm):
    asked(early)


@proves
def test_of_the_module(storm):
    asked(app)


@proves
def test_put_together(storm):
    own = FastAPI()
    own.include_router(router)
    own.get("/debug")(lambda: 1)
    asked(own)


@proves
def test_overridden(storm):
    async def other_db():
        async with maker() as session:
            yield session
    app.dependency_overrides[get_db] = other_db
    asked(app)


@proves
def test_in_a_function(storm):
    asked(made.in_a_function(app))


@proves
def test_of_a_function(storm):
    asked(made.function)


@proves
def test_in_middleware(storm):
    asked(made.create_wrapped())


@proves
def test_of_another(storm):
    other = FastAPI()
    other.get("/dancers")(lambda: ["Storm"])
    asked(other)


@proves
def test_of_a_part(storm):
    other = FastAPI()
    other.get("/dancers")(dancers)
    other.get("/dances")(lambda: ["Storm"])
    asked(other)


@proves
def test_of_two(storm):
    other = FastAPI()
    other.get("/dancers")(lambda: ["Storm"])
    asked(other)
    asked(app)


@proves
def test_of_nobody(storm):
    assert str(storm)


@proves
def test_of_the_fixture(ours, storm):
    assert ours.get("/dancers").json() == ["Sand", "Storm"]
"""


def project(folder: Path) -> Example:
    """The app, made in many ways, and tests that ask it by clients of their own."""
    return seeing(folder, TESTS).with_files(made=MADE)


def ran(folder: Path, app: str, *args: str) -> Told:
    """What a run of them says, where this is the app."""
    return told(project(folder), "-o", f"arena_app={app}", *args)


def of(run: Told, status: str) -> set[str]:
    """The scenarios with this status."""
    return {name for name, one in run.statuses.items() if one == status}


@pytest.mark.slow
def test_the_app_is_known_whoever_asks_it(tmp_path: Path) -> None:
    """The object itself, also inside of middleware, and no other one of the same routers."""
    run = ran(tmp_path, "made:cors")
    its_own = {"of_the_module", "overridden", "in_a_function", "of_a_function", "of_two"}
    its_own |= {"of_the_fixture"}
    assert of(run, "PROVEN") == its_own, run.run.output
    assert of(run, "HOLLOW") >= {"of_nobody", "of_another", "put_together"}
    [one] = facts_of(run, "of_the_module")["requests"]
    assert (one["route"], one["read"]) == ("/dancers", ["dancers"])


@pytest.mark.slow
@pytest.mark.parametrize("app", ["made:create_app", "made:create_wrapped"])
def test_what_the_factory_makes_is_the_app_whoever_calls_it(tmp_path: Path, app: str) -> None:
    """For a session, in a test, in middleware; not what it has made before anybody looked."""
    run = ran(tmp_path, app)
    made = {"in_middleware", "of_the_fixture"}
    if app == "made:create_app":
        made |= {"of_a_session", "of_the_factory", "by_a_transport"}
    assert of(run, "PROVEN") == made, run.run.output
    assert run.statuses["of_the_import"] == "UNKNOWN"
    assert "the test sent no request to an app that the factory made" in run.reason("of_the_import")


@pytest.mark.slow
def test_without_an_app_it_is_unknown_which_is_under_test(tmp_path: Path) -> None:
    """Unless the test asks for the fixture, which is defined then."""
    run = ran(tmp_path, "", "-k", "of_the_module or of_nobody")
    assert of(run, "UNKNOWN") >= {"of_the_module", "of_nobody"}
    assert "arena_app is not set" in run.reason("of_the_module")


@pytest.mark.slow
@pytest.mark.parametrize("app", ["made:function", "made:create_raw"])
def test_where_calls_cannot_be_seen_it_is_unknown_and_never_no(tmp_path: Path, app: str) -> None:
    """A function's are not by all clients, nor what a factory makes that nobody has called."""
    run = ran(tmp_path, app, "-k", "of_the_module or of_nobody or of_another or of_a_function")
    assert of(run, "PROVEN") == {"of_a_function"} & {app.replace("made:", "of_a_")}
    assert {run.statuses[one] for one in ("of_the_module", "of_another", "of_nobody")} == {
        "UNKNOWN"
    }
    assert "arena_app" in run.reason("of_the_module")


LITESTAR = """
from litestar.testing import TestClient
from made import create_litestar


@pytest.fixture
def arena_app():
    return create_litestar()


@proves
def test_of_the_factory():
    with TestClient(create_litestar()) as client:
        assert client.get("/dancers").json() == []


@proves
def test_of_the_fixture(test_client):
    assert test_client.get("/dancers").json() == []
"""


@pytest.mark.slow
def test_a_fixture_of_that_name_tells_which_app_is_meant(tmp_path: Path) -> None:
    """Also where nothing is configured, and of Litestar's, which nobody can refer to weakly."""
    example = seeing(tmp_path, LITESTAR).with_files(made=MADE)
    example = example.change("dancers.feature", "Feature:", "@no-seed\nFeature:")
    for app, proven in (("", {"of_the_fixture"}), ("made:create_litestar", BOTH)):
        run = told(example, "-o", f"arena_app={app}")
        assert of(run, "PROVEN") == proven, run.run.output


OF_FLASK = """
from app import Dancer, app


def create_flask():
    return app


@pytest.fixture
def storm(arena):
    with arena.session() as session:
        session.add(Dancer(name="Storm"))
        session.commit()


@proves
def test_first(storm):
    assert app.test_client().get("/dancers").json == ["Sand", "Storm"]


@proves
def test_by_the_fixture(storm, arena_app):
    assert arena_app.test_client().get("/dancers").json == ["Sand", "Storm"]


@proves
def test_by_our_client(storm, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Storm"]


@proves
def test_last(storm):
    assert app.test_client().get("/dancers").json == ["Sand", "Storm"]
"""


@pytest.mark.slow
def test_a_client_of_flask_is_unknown_whatever_ran_before(tmp_path: Path) -> None:
    """Its requests do not pass pytest-arena: none was seen, and none is missing."""
    example = seeing(tmp_path, OF_FLASK).with_files(app=WSGI_APP)
    run = told(example, "-o", "arena_app=test_it:create_flask")
    run.run.expect(passed=4)
    assert run.statuses == {
        "first": "UNKNOWN",
        "by_the_fixture": "UNKNOWN",
        "by_our_client": "PROVEN",
        "last": "UNKNOWN",
    }, run.run.output


BOTH = {"of_the_factory", "of_the_fixture"}


@pytest.mark.slow
def test_the_frameworks_classes_are_as_they_were(tmp_path: Path) -> None:
    """What was wrapped is not, when the run is over."""
    check = """
import atexit
from fastapi import FastAPI
from litestar import Litestar
from starlette.applications import Starlette

def files():
    kinds = (FastAPI, Litestar, Starlette)
    return [one.__code__.co_filename for kind in kinds for one in (kind.__init__, kind.__call__)]

before = files()
atexit.register(lambda: print("SAME" if files() == before else files()))
"""
    example = project(tmp_path).with_files(watcher=check)
    args = ("-p", "watcher", "-k", "of_the_factory", "-o", "arena_app=made:create_app")
    example.run(*args).says("SAME", "1 of 15 proven")
