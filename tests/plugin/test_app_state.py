"""Does what an app keeps in its state, and not in a database, end with the test?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_litestar import APP as LITESTAR
from tests.plugin.test_wsgi import flask  # noqa: F401 - a fixture of this module, too

if TYPE_CHECKING:
    from tests.example import Example

# A cache in each place where an app of Starlette's may keep one.
ROUTES = """

from collections import OrderedDict, deque
from contextlib import asynccontextmanager

from fastapi import APIRouter

inner = FastAPI()
app.mount("/inner", inner)
deep = FastAPI()
router = APIRouter()
router.mount("/deep", deep)
app.include_router(router, prefix="/included")
for each in app, inner, deep:
    each.state.cache = {"by name": {}, "all": [1]}
    each.state.seen = set()
    each.state.last = deque([1], maxlen=3)
    each.state.order = OrderedDict(a=1)
    each.state.engine = engine


def caches(of):
    state = of.state
    return [state.cache, sorted(state.seen), list(state.last), list(state.order), state.engine]


def fill(of):
    of.state.cache["by name"]["Sand"] = 1
    of.state.cache["all"].append(2)
    of.state.cache["all"][0] = 3
    of.state.seen.add("Sand")
    of.state.last.extend([2, 3, 4])
    of.state.order["b"] = of.state.order.pop("a")
    of.dependency_overrides[fill] = fill


@app.post("/fill")
def fill_both():
    fill(app)
    fill(inner)
    fill(deep)
"""
STARLETTE = """
import pytest
from app import app, caches, deep, engine, inner
from fastapi.testclient import TestClient

BEFORE = [{"by name": {}, "all": [1]}, [], [1], ["a"], engine]


def check():
    assert caches(app) == caches(inner) == caches(deep) == BEFORE
    assert app.dependency_overrides == inner.dependency_overrides == deep.dependency_overrides == {}


@pytest.fixture(scope="module")
def warm():
    app.state.cache["all"].append("warm")


def test_1(test_client):
    check()
    test_client.post("/fill")
    assert caches(app) == caches(inner) != BEFORE


def test_2_by_a_client_of_its_own():
    check()
    TestClient(app).post("/fill")
    assert caches(app) != BEFORE


def test_3():
    check()


@pytest.mark.parametrize("turn", range(2))
def test_4_what_a_wider_fixture_puts_there_stays(warm, test_client, turn):
    assert app.state.cache["all"] == [1, "warm"]
    test_client.post("/fill")
"""


def test_what_a_request_puts_into_the_containers_of_an_apps_state_ends_with_its_test(
    example: Example,
) -> None:
    """Also in a container inside of another one, and in the state of a mounted app."""
    project = example.with_files(app=example.files["app.py"] + ROUTES, test_state=STARLETTE)
    project.run().expect(passed=5).says("left app.dependency_overrides; restored")


OF_LIFESPAN = """
from contextlib import asynccontextmanager
from fastapi import FastAPI, Request
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    pass


@asynccontextmanager
async def lifespan(app):
    yield {"cache": {}, "hits": [0]}


app = FastAPI(lifespan=lifespan)


@app.get("/{key}")
async def get(key: str, request: Request) -> str:
    known = key in request.state.cache
    request.state.cache[key] = 1
    request.state.hits.append(1)
    return f"{known} {len(request.state.hits)}"
"""
IN_TURN = """
import pytest


@pytest.mark.parametrize("turn", range(2))
async def test_it(client, turn):
    assert (await client.get("/a")).json() == "False 2"
    assert (await client.get("/a")).json() == "True 3"
"""


SECOND = """

def role() -> str:
    return "none"


admin = FastAPI()
admin.state.flags = {}


@admin.get("/role")
def show_role(name: str = Depends(role)) -> str:
    return name
"""
SECOND_TESTS = """
import httpx2
import pytest
from app import admin, role
from starlette.testclient import TestClient


def as_chief():
    return "chief"


@pytest.fixture(scope="class")
def as_guest():
    admin.dependency_overrides[role] = lambda: "guest"


@pytest.mark.parametrize("turn", range(2))
async def test_it(turn):
    assert admin.state.flags == {}
    transport = httpx2.ASGITransport(admin)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/role")).json() == "none"
        admin.dependency_overrides[role] = as_chief
        admin.state.flags["new"] = True
        assert (await client.get("/role")).json() == "chief"


@pytest.mark.parametrize("turn", range(2))
class TestGuests:
    def test_it(self, as_guest, turn):
        assert TestClient(admin).get("/role").json() == "guest"
        admin.dependency_overrides[role] = as_chief
        assert TestClient(admin).get("/role").json() == "chief"


def test_the_last():
    assert TestClient(admin).get("/role").json() == "none"
"""


@pytest.mark.slow
def test_the_state_of_an_app_that_no_option_names_ends_with_the_test(example: Example) -> None:
    """What a wider fixture overrides in it stays until the fixture ends."""
    project = example.with_files(app=example.files["app.py"] + SECOND, test_it=SECOND_TESTS)
    run = project.run("-p", "no:randomly").expect(passed=5)
    run.says("test_it[0] left app.dependency_overrides; restored")


ADDED_ROUTES = """
import pytest
from app import app


@pytest.mark.parametrize("turn", range(2))
async def test_it(client, turn):
    assert (await client.get("/boom")).status_code == 404

    @app.get("/boom")
    def boom() -> str:
        return "boom"

    assert (await client.get("/boom")).status_code == 200
    assert "/boom" in (await client.get("/openapi.json")).json()["paths"]


async def test_the_schema(client):
    assert "/boom" not in (await client.get("/openapi.json")).json()["paths"]


@pytest.mark.parametrize("turn", range(2))
async def test_a_dependency(turn):
    assert app.router.dependencies == []
    app.router.dependencies.append(test_it)
"""


def test_a_route_that_a_test_adds_ends_with_the_test(example: Example) -> None:
    """The next test gets 404, and an OpenAPI schema without the route."""
    example.with_files(test_it=ADDED_ROUTES).run("-p", "no:randomly").expect(passed=5)


LIMITED_APP = """
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from sqlalchemy.orm import DeclarativeBase
from starlette.middleware.base import BaseHTTPMiddleware


class Base(DeclarativeBase):
    pass


class Numbers(BaseHTTPMiddleware):
    number = 0

    async def dispatch(self, request, call_next):
        self.number += 1
        response = await call_next(request)
        response.headers["number"] = str(self.number)
        return response


class Hosts:
    def __init__(self, app):
        self.app = app
        self.paths = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            self.pool = object()
        else:
            assert self.pool is not None
            self.paths.append(scope["path"])
            assert len(self.paths) < 4
        await self.app(scope, receive, send)


class Slotted:
    __slots__ = ("app",)

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


class Limit:
    def __init__(self):
        self.calls = []

    def __call__(self):
        self.calls.append("a call")
        return len(self.calls)

    def method(self):
        return self()

    def once(self):
        if self() > 1:
            raise HTTPException(429)


app = FastAPI()
app.add_middleware(Numbers)
app.add_middleware(Hosts)
app.add_middleware(Slotted)
router = APIRouter()


@router.get("/once", dependencies=[Depends(Limit().once)])
def once(): ...


app.include_router(router, dependencies=[Depends(Limit().once)])


@app.get("/")
def calls(called: int = Depends(Limit()), method: int = Depends(Limit().method)):
    return called, method
"""

LIMITED = """
import pytest


@pytest.mark.parametrize("turn", range(3))
def test_it(test_client, turn):
    answer = test_client.get("/")
    assert answer.json() == [1, 1]
    assert answer.headers["number"] == "1"
    assert test_client.get("/").json() == [2, 2]
    assert test_client.get("/once").status_code == 200
"""


def test_the_state_of_middleware_and_of_dependencies_ends_with_the_test(example: Example) -> None:
    """Starlette builds the middleware at the first request, in the middle of a test."""
    project = example.with_files(app=LIMITED_APP, test_it=LIMITED)
    project = project.change("pytest.ini", "arena_seed = seed:seed", "")
    project.run().expect(passed=3)
    project.run("--arena-lifespan=session").expect(passed=3)


def test_the_state_of_a_lifespan_for_the_session_ends_with_the_test(example: Example) -> None:
    """The containers that the lifespan gives to the requests of all tests."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "arena_lifespan = session\n")
    project.with_files(app=OF_LIFESPAN, test_it=IN_TURN).run().expect(passed=2)


FLASK = """
import pytest
from app import app


@pytest.mark.parametrize("turn", range(2))
def test_it(turn):
    assert "FEATURE" not in app.config
    assert app.config["LIMITS"] == []
    assert app.extensions["cache"] == {}
    assert app.test_client().post("/fill").status_code == 200
    assert app.extensions["cache"] == {"Sand": 1}
    assert app.config["FEATURE"]
    assert app.extensions["late"] is app
"""
FLASK_ROUTE = """

app.extensions["cache"] = {}
app.config["LIMITS"] = []


@app.post("/fill")
def fill():
    app.extensions["cache"]["Sand"] = 1
    app.extensions["late"] = app
    app.config["LIMITS"].append(1)
    app.config["FEATURE"] = True
    return ""
"""


def test_the_configuration_of_a_flask_app_ends_with_the_test(flask: Example) -> None:  # noqa: F811 - the fixture
    """And what requests put into the containers of its extensions."""
    app = flask.files["app.py"] + FLASK_ROUTE
    flask.with_files(app=app, test_state=FLASK).run().expect(passed=2)


LITESTAR_ROUTES = """

@get("/answers", cache=True, sync_to_thread=True)
def answers() -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(Dancer))


@post("/fill")
async def fill(state: State, request: Request) -> None:
    state.cache["Sand"] = 1
    await request.app.stores.get("named").set("Sand", "1")


stores = {"named": MemoryStore()}
app = Litestar([answers, fill], state=State({"cache": {}}), stores=stores)
"""
LITESTAR_TESTS = """
import pytest
from app import Dancer, app, stores


@pytest.mark.parametrize("turn", range(2))
async def test_it(client, db_session, turn):
    assert app.state.cache == {}
    assert not await stores["named"].exists("Sand")
    assert (await client.get("/answers")).json() == turn
    await client.post("/fill")
    if turn == 0:
        assert await stores["named"].exists("Sand")


@pytest.fixture(autouse=True)
def rows(turn, db_session):
    for number in range(turn):
        db_session.add(Dancer(name=str(number)))
"""


@pytest.mark.slow
def test_the_state_and_the_memory_stores_of_litestar_end_with_the_test(example: Example) -> None:
    """An answer that Litestar has cached in one test is no answer in the next one."""
    head, _ = LITESTAR.split("\n\napp = Litestar", 1)
    imports = (
        "from litestar import Request\n"
        "from litestar.datastructures import State\n"
        "from litestar.stores.memory import MemoryStore\n"
    )
    project = example.with_files(
        app=imports + head + LITESTAR_ROUTES, test_state=LITESTAR_TESTS
    ).change("pytest.ini", "arena_seed = seed:seed\n", "")
    project.run().expect(passed=2)


SERVICE = """

from dataclasses import dataclass, field


@dataclass
class Counts:
    by_name: dict = field(default_factory=dict)


class Service:
    def __init__(self):
        self.hits = 0
        self.last = None
        self.counts = Counts()


class Mailer:
    def __init__(self):
        self.sent = 0
        self.connection = None


app.state.service = Service()
app.state.mailer = Mailer()


@app.post("/fill")
def fill():
    service = app.state.service
    service.hits += 1
    service.last = "Sand"
    service.late = True
    service.counts.by_name["Sand"] = 1
    app.state.mailer.sent += 1
    app.state.mailer.connection = app.state.mailer.connection or object()
"""
SERVICE_TESTS = """
import pytest
from app import app


@pytest.mark.parametrize("turn", range(2))
def test_it(test_client, turn):
    service = app.state.service
    assert (service.hits, service.last, service.counts.by_name) == (0, None, {})
    assert not hasattr(service, "late")
    test_client.post("/fill")
    assert (service.hits, service.last, service.counts.by_name) == (1, "Sand", {"Sand": 1})
    assert app.state.mailer.sent == turn + 1
"""


def test_the_attributes_of_the_apps_objects_in_its_state_end_with_the_test(
    example: Example,
) -> None:
    """An object that got a connection keeps all of its attributes: they belong together."""
    project = example.with_files(app=example.files["app.py"] + SERVICE, test_state=SERVICE_TESTS)
    project.run().expect(passed=2)


KINDS = """

from collections import OrderedDict, UserDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import pydantic


@dataclass(slots=True)
class InSlots:
    data: dict = field(default_factory=dict)
    hits: int = 0
    late: Any = None


class Model(pydantic.BaseModel):
    data: dict = {}
    hits: int = 0
    _seen: set = pydantic.PrivateAttr(default_factory=set)


class Struct(msgspec.Struct):
    data: dict = msgspec.field(default_factory=dict)
    hits: int = 0


class Cache(dict):
    hits = 0

    def __getitem__(self, name):
        self.hits += 1
        return super().__getitem__(name)

    def __setitem__(self, name, value):
        raise TypeError("read only")

    def __iter__(self):
        raise TypeError("not for loops")


class Ordered(OrderedDict):
    pass


class Lists(defaultdict):
    __slots__ = ("hits",)


class User(UserDict):
    pass


class Names(list):
    pass


class Last(deque):
    pass


class Seen(set):
    pass


class Pair(NamedTuple):
    first: dict
    second: InSlots


objects = {
    "slots": InSlots(),
    "model": Model(),
    "struct": Struct(),
    "cache": Cache(sand=1),
    "ordered": Ordered(sand=1),
    "lists": Lists(list, sand=[1]),
    "user": User(sand=1),
    "names": Names(["sand"]),
    "last": Last(["sand"], maxlen=3),
    "seen": Seen({"sand"}),
    "mailer": InSlots(),
}
app.state.objects = objects
app.state.inner = InSlots(data=Struct(data=Model(data=Cache())))
app.state.pair = ([], {})
app.state.table = {"a": (Pair({"x": []}, InSlots()), 1)}


def attributes_of(names):
    found = {}
    for name in names:
        value = objects[name]
        found[name] = (dict(value.data), value.hits)
    return found


def contents():
    inner = app.state.inner
    pair = app.state.table["a"][0]
    return {
        **attributes_of(["slots", "model", "struct"]),
        "private": list(objects["model"]._seen),
        "fields set": list(objects["model"].model_fields_set),
        "cache": (list(objects["cache"].items()), objects["cache"].hits),
        "ordered": list(objects["ordered"]),
        "lists": (dict(objects["lists"]), hasattr(objects["lists"], "hits")),
        "user": dict(objects["user"]),
        "names": list(objects["names"]),
        "last": (list(objects["last"]), objects["last"].maxlen),
        "seen": list(objects["seen"]),
        "tuple": (list(app.state.pair[0]), dict(app.state.pair[1])),
        "named tuple": (list(pair.first["x"]), pair.second.hits),
        "inner": (inner.hits, inner.data.hits, list(inner.data.data.data.items())),
    }


@app.post("/fill")
def fill():
    for name in ("slots", "model", "struct", "mailer"):
        objects[name].data["moon"] = 1
        objects[name].hits += 1
    objects["mailer"].late = objects["mailer"].late or object()
    objects["model"]._seen.add("moon")
    objects["cache"].update(moon=1)
    objects["cache"]["moon"]
    objects["ordered"]["moon"] = 1
    objects["ordered"].move_to_end("sand")
    objects["lists"]["sand"].append(2)
    objects["lists"].hits = 1
    objects["user"]["moon"] = 1
    objects["names"].append("moon")
    objects["last"].extend("abc")
    objects["seen"].add("moon")
    app.state.pair[0].append("moon")
    app.state.pair[1]["moon"] = 1
    app.state.table["a"][0].first["x"].append("moon")
    app.state.table["a"][0].second.hits = 1
    app.state.inner.hits = 1
    app.state.inner.data.hits = 1
    app.state.inner.data.data.data.update(moon=1)
"""
KINDS_TESTS = """
import pytest
from app import contents, objects

BEFORE = contents()


@pytest.mark.parametrize("turn", range(2))
def test_it(test_client, turn):
    assert contents() == BEFORE
    test_client.post("/fill")
    now = contents()
    assert [name for name in now if now[name] == BEFORE[name]] == []
    assert (objects["mailer"].data, objects["mailer"].hits) == ({"moon": 1}, turn + 1)
"""


def test_objects_with_slots_models_and_subclasses_of_containers_are_restored(
    example: Example,
) -> None:
    """Also in tuples, and attributes of a pydantic model and a msgspec Struct.

    No method of the app is called.
    """
    project = example.with_files(app=example.files["app.py"] + KINDS, test_state=KINDS_TESTS)
    project.run().expect(passed=2)


OF_LIBRARIES = """

import asyncio
import logging
import queue
from collections import ChainMap, UserDict, UserList
from contextlib import suppress
from http.cookies import SimpleCookie
from types import SimpleNamespace


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []


app.state.user = UserDict()
app.state.chain = ChainMap({})
app.state.names = UserList()
app.state.space = SimpleNamespace(cache={})
app.state.jar = SimpleCookie()
app.state.records = Records()
app.state.unused = SimpleCookie()
app.state.jobs = queue.Queue()
app.state.later = asyncio.Queue()
app.state.never = asyncio.Queue()


@app.post("/fill")
def fill():
    app.state.user["Sand"] = 1
    app.state.chain["Sand"] = 1
    app.state.names.append("Sand")
    app.state.space.late = True
    app.state.space.cache["Sand"] = 1
    app.state.jar["Sand"] = 1
    app.state.records.records.append(1)
    app.state.jobs.put("Sand")
    app.state.later.put_nowait("Sand")


@app.post("/wait")
async def wait():
    with suppress(TimeoutError):
        await asyncio.wait_for(app.state.never.get(), 0.01)
"""
OF_LIBRARIES_TESTS = """
import pytest
from app import app


@pytest.fixture(scope="module")
def filled():
    app.state.jar["wide"] = 1


@pytest.fixture
def emptied():
    yield
    app.state.jar.clear()
    app.state.records.records.clear()


def test_1(test_client):
    test_client.post("/fill")
    test_client.post("/wait")


def test_2(test_client, emptied):
    state = app.state
    assert [*state.user, *state.chain, *state.names, *state.space.cache] == []
    assert not hasattr(state.space, "late")
    assert [*state.jar] == ["Sand"]


def test_3(filled):
    assert app.state.records.records == []
"""


def test_a_changed_object_of_a_library_is_named_because_it_is_not_restored(
    example: Example,
) -> None:
    """Restored are the containers of ``collections`` and a SimpleNamespace."""
    app = example.files["app.py"] + OF_LIBRARIES
    project = example.with_files(app=app, test_state=OF_LIBRARIES_TESTS)
    run = project.run("-p", "no:randomly", "-q").expect(passed=3)
    reason = "which pytest-arena does not restore"
    run.says(
        f"test_state.py::test_1 changed app.state.jar (http.cookies.SimpleCookie), {reason}",
        f"test_state.py::test_1 changed app.state.records (app.Records), {reason}",
        f"test_state.py::test_1 changed app.state.jobs (queue.Queue), {reason}",
        f"test_state.py::test_1 changed app.state.later (asyncio.queues.Queue), {reason}",
        f"module fixture filled changed app.state.jar (http.cookies.SimpleCookie), {reason}",
    )
    run.never_says("app.state.unused", "app.state.never", "app.state.user", "test_3")


MODULES = """

cached = {}
NAMES = ["Sand"]


@app.post("/names/{name}")
def keep(name: str):
    cached[name] = len(NAMES)


@app.get("/names")
def names() -> list[str]:
    return list(cached)
"""
MODULE_TESTS = """
def test_1(test_client):
    test_client.post("/names/Sand")


def test_2(test_client):
    assert test_client.get("/names").json() == []
"""


@pytest.mark.slow
def test_the_report_of_a_failed_test_names_what_has_grown_in_the_apps_modules(
    example: Example,
) -> None:
    """A cache in a module outlives the test."""
    app = example.files["app.py"] + MODULES
    run = example.with_files(app=app, test_modules=MODULE_TESTS).run("-q")
    run.expect(1, passed=1, failed=1)
    run.says(
        "in the app's modules, by this test or an earlier one", "app.cached has 1 item, and had 0"
    )
    run.never_says("NAMES")


FLAGGED = """

started = False


def ensure_pool():
    global started
    if not started:
        app.state.pool = ["open"]
        started = True


@app.get("/pool")
def pool():
    ensure_pool()
    return app.state.pool
"""
FLAGGED_TESTS = """
import app


def test_1(test_client):
    assert test_client.get("/pool").json() == ["open"]


def test_2(test_client):
    assert test_client.get("/pool").json() == ["open"]


async def test_3(client):
    assert (await client.get("/pool")).json() == ["open"]


def test_4():
    app.app.state.other
"""


@pytest.mark.slow
def test_the_report_names_the_attribute_of_the_apps_state_that_a_flag_does_not_set_again(
    example: Example,
) -> None:
    """A flag in a module outlives the test, and the attribute does not."""
    app = example.files["app.py"] + FLAGGED
    run = example.with_files(app=app, test_flag=FLAGGED_TESTS).run("-q")
    run.expect(1, passed=1, failed=3)
    words = (
        "pytest-arena removed `app.state.pool` after test_flag.py::test_1, which had set it: each "
        "test starts with the app.state that was there before"
    )
    run.says(words, "A flag in a module, such as `if not _started:`, outlives the test")
    assert run.output.count("pytest-arena removed `app.state.pool`") == 2
    run.never_says("removed `app.state.other`")


FLAGGED_FIXTURE = """
import app
import pytest
from fastapi.testclient import TestClient


@pytest.fixture(scope="module")
def pool_client():
    with TestClient(app.app) as client:
        client.get("/pool")
        yield client


def test_it(pool_client):
    assert pool_client.get("/pool").json() == ["open"]
"""


@pytest.mark.slow
def test_the_report_names_the_attribute_that_a_wide_fixture_had_set(example: Example) -> None:
    """Its end restores ``app.state`` too."""
    app = example.files["app.py"] + FLAGGED
    files = {"test_1": FLAGGED_FIXTURE, "test_2": FLAGGED_TESTS.partition("async def")[0]}
    run = example.with_files(app=app, **files).run("-q").expect(1, passed=1, failed=2)
    words = "pytest-arena removed `app.state.pool` after module fixture pool_client, which had set"
    assert run.output.count(words) == 2, run.output


GUARDED = """

from fastapi import Depends, HTTPException


def current_user():
    raise HTTPException(401)


@app.get("/me")
def me(user: str = Depends(current_user)) -> str:
    return user


@app.get("/flag")
def flag() -> str | None:
    return getattr(app.state, "flag", None)
"""
AS_ADMIN = """
import pytest
from app import app, current_user


@pytest.fixture(scope="session", autouse=True)
def flag():
    app.state.flag = "on"
    app.dependency_overrides[pytest] = pytest


@pytest.fixture(scope="module")
def inner():
    app.dependency_overrides[flag] = flag


@pytest.fixture(scope="module")
def as_admin(request):
    request.getfixturevalue("inner")
    app.dependency_overrides[current_user] = lambda: "admin"
    yield
    assert app.state.flag == "on"


@pytest.fixture(scope="module", autouse=True)
def that_fails(request):
    if request.module.__name__ == "test_c":
        app.dependency_overrides[current_user] = lambda: "failed"
        raise ValueError("no set-up")


def me(test_client):
    response = test_client.get("/me")
    return response.json() if response.is_success else response.status_code
"""
IN_A_MODULE = """
from conftest import me


def test_1(as_admin, test_client):
    assert me(test_client) == "admin"
    test_client.app.state.flag = "off"


def test_2(as_admin, test_client):
    assert me(test_client) == "admin"
    assert test_client.get("/flag").json() == "on"
"""
IN_A_CLASS = """
import unittest

from app import app, current_user
from conftest import me
from fastapi.testclient import TestClient


class TestAdmin(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        app.dependency_overrides[current_user] = lambda: "unittest"

    def test_1(self):
        assert me(TestClient(app)) == "unittest"

    def test_2(self):
        assert me(TestClient(app)) == "unittest"


class TestAnonymous(unittest.TestCase):
    def test_1(self):
        assert me(TestClient(app)) == 401


def test_by_name(request, test_client):
    request.getfixturevalue("as_admin")
    assert me(test_client) == "admin"
"""
ANONYMOUS = """
import pytest
from app import app
from conftest import me


def test_nothing_is_left(test_client):
    assert me(test_client) == 401
    assert [*app.dependency_overrides] == [pytest]
    assert test_client.get("/flag").json() == "on"
"""


@pytest.mark.slow
def test_what_a_wider_fixture_changes_in_the_app_ends_with_the_fixture(example: Example) -> None:
    """Also of ``setUpClass``, and of a fixture whose set-up has failed."""
    project = example.with_files(
        app=example.files["app.py"] + GUARDED,
        conftest=AS_ADMIN,
        test_a=IN_A_MODULE,
        test_b=IN_A_CLASS,
        test_c="def test_it():\n    pass\n",
        test_d=ANONYMOUS,
    )
    result = project.run().expect(1, passed=7, errors=1)
    result.says("module fixture as_admin left app.dependency_overrides; restored")
    result.says("setUpClass of test_b.py::TestAdmin left app.dependency_overrides; restored")
    result.says("module fixture that_fails left app.dependency_overrides; restored")
    result.never_says("session fixture")


SETTINGS = """
import pytest
from app import app
from fastapi import HTTPException
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from starlette.datastructures import State

client = TestClient(app)


class Counting:
    requests = 0

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        Counting.requests += scope["type"] == "http"
        await self.app(scope, receive, send)


def answer():
    return client.get("/me").json()


def test_1_overrides():
    app.state.repository.store["a"] = 1
    app.dependency_overrides = {app.state.user: lambda: "Ada"}
    assert answer() == "Ada"


def test_2():
    assert app.state.repository.store == {}
    assert answer() == {"detail": "who?"}


@pytest.fixture
def overridden():
    app.dependency_overrides = {app.state.user: lambda: "Ada"}


def test_3_by_a_fixture(overridden):
    assert answer() == "Ada"


def test_4():
    assert answer() == {"detail": "who?"}
    app.state = State({"user": app.state.user, "extra": 1})


def test_5_state():
    assert not hasattr(app.state, "extra")
    app.add_exception_handler(HTTPException, lambda request, error: JSONResponse("handled"))
    app.middleware_stack = None
    assert answer() == "handled"


def test_6_handlers():
    assert answer() == {"detail": "who?"}
    app.middleware_stack = None
    app.add_middleware(Counting)
    answer()
    assert Counting.requests == 1
    app.router.routes = []
    assert answer() == {"detail": "Not Found"}


def test_7_routes():
    assert answer() == {"detail": "who?"}
    assert Counting.requests == 2  # of the test before
    client.headers["Authorization"] = "Ada"
    client.params = {"a": "1"}
    client.follow_redirects = False
    assert answer() == "Ada"


def test_8_settings_of_a_client():
    assert answer() == {"detail": "who?"}
    assert not client.params
    assert client.follow_redirects
"""
USER = """

from fastapi import Depends, Header, HTTPException


def user(authorization: str = Header("")):
    if not authorization:
        raise HTTPException(401, "who?")
    return authorization


class Repository:
    store: dict = {}


app.state.user = user
app.state.repository = Repository()


@app.get("/me")
def me(name: str = Depends(user)):
    return name
"""


def test_settings_of_the_app_and_of_a_modules_client_end_with_the_test(example: Example) -> None:
    """An attribute that a test assigns, too, not only what it puts into a container."""
    project = example.with_files(app=example.files["app.py"] + USER, test_state=SETTINGS)
    run = project.run("-p", "no:randomly").expect(passed=8)
    run.says(
        "test_1_overrides left app.dependency_overrides; restored, also in 1 more: test_state.py::"
    )
