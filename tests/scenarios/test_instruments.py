"""What do the instruments see of a test, whichever way it seeds, requests and asserts?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena.scenarios.assertions._idle import is_constant
from tests.scenarios.proving import told
from tests.scenarios.seen import facts_of, seeing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.proving import Told

TESTS = """
import asyncio, contextlib, sqlite3, threading, unittest
from unittest import mock
import httpx2
from hypothesis import HealthCheck, given, settings, strategies
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient
from app import Dancer, app, maker
from pytest_arena import inserted


async def _asked(client):
    assert (await client.get("/dancers")).status_code == 200


@proves
async def test_usual(client, db_session):
    db_session.add(Dancer(name="Storm"))
    await _asked(client)


@pytest.fixture(scope="class")
def crew(arena):
    with arena.session() as session:
        session.add_all([Dancer(name="Ata"), Dancer(name="Bo")])
        session.commit()


@pytest.fixture(scope="class")
def wide_client(arena):
    return arena.test_client()


class TestWide:
    def test_which_sets_it_up(self, crew):
        pass

    @proves
    async def test_wide(self, client, crew):
        await _asked(client)

    @proves
    def test_wide_client(self, wide_client):
        assert wide_client.get("/dancers").json() == ["Sand", "Ata", "Bo"]

    @proves
    async def test_wide_of_others(self, client):
        await _asked(client)


@proves
async def test_came_and_went(client, db_session):
    storm = Dancer(name="Storm")
    db_session.add(storm)
    await db_session.commit()
    await db_session.delete(storm)
    await _asked(client)

@proves
async def test_rolled_back(client, db_session):
    db_session.add(Dancer(name="Storm"))
    await db_session.flush()
    await db_session.rollback()
    await _asked(client)

@proves
async def test_by_the_apps_engine(client):
    async with maker() as session:
        session.add_all([Dancer(name="Storm"), Dancer(name="Crumbs")])
        await session.commit()
    await _asked(client)

@proves
async def test_by_a_driver(client, arena):
    file = arena.url.partition("///")[2]
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("INSERT INTO dancers (name) VALUES ('Storm')")
        connection.commit()
    await _asked(client)

@proves
async def test_by_autocommit(client, arena):
    engine = create_engine(arena.url.replace("+aiosqlite", ""), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO dancers (name) VALUES ('Storm')"))
    engine.dispose()
    await _asked(client)

@proves
async def test_by_the_app_first(client, scenario):
    with scenario.given('a dancer "Storm" exists'):
        await client.post("/dancers/Storm")
    with scenario.when("I GET /dancers"):
        response = await client.get("/dancers")
    with scenario.then("there are dancers"):
        assert "Storm" in response.json()

@pytest.fixture
async def posted(client):
    await client.post("/dancers/Storm")

@proves
async def test_by_a_fixtures_request(client, posted):
    await _asked(client)

@proves
async def test_changed(client, db_session):
    db_session.add(Dancer(name="Storm"))
    await client.post("/dancers/Crumbs")
    assert (await client.get("/dancers")).json() == ["Sand", "Storm", "Crumbs"]

@proves
async def test_gathered(client):
    answers = await asyncio.gather(*(client.post(f"/dancers/{one}") for one in "AB"))
    assert [one.status_code for one in answers] == [201, 201]

@proves
def test_sync(test_client, db_session):
    db_session.add(Dancer(name="Storm"))
    assert test_client.get("/dancers").json() == ["Sand", "Storm"]

@proves
async def test_foreign_async(db_session):
    db_session.add(Dancer(name="Storm"))
    await db_session.commit()
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        await client.post("/dancers/Crumbs")
        assert (await client.get("/dancers?a=b")).json() == ["Sand", "Storm", "Crumbs"]

@proves
def test_foreign_sync():
    with TestClient(app) as client:
        assert client.get("/dancers").json() == ["Sand"]

@proves
def test_in_a_thread(test_client):
    got = []
    thread = threading.Thread(target=lambda: got.append(test_client.get("/dancers").json()))
    thread.start()
    thread.join()
    assert got == [["Sand"]]

@proves
async def test_other_proofs(client):
    answer = await client.get("/dancers")
    with pytest.raises(KeyError):
        {}[answer.status_code]
    with pytest.warns(UserWarning):
        import warnings
        warnings.warn("old", stacklevel=1)
    called = mock.Mock()
    called(answer.status_code)
    called.assert_called_once_with(200)

@proves
async def test_expected_changes(client, arena):
    async with arena.expect_changes(dancers=inserted(1)):
        await client.post("/dancers/Crumbs")

@proves
async def test_unobserved(client):
    await client.get("/dancers")
    answer = await client.post("/dancers/Crumbs")
    assert answer.status_code == 201

@proves
async def test_loop(client):
    names = (await client.get("/dancers")).json()
    for number in range(50):
        assert len(names) + number >= 1

@proves
@settings(
    max_examples=5,
    database=None,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=strategies.sampled_from(["Ata", "Bo"]))
def test_examples(test_client, name):
    test_client.post(f"/dancers/{name}")
    assert name in test_client.get("/dancers").json()


class TestCase(unittest.TestCase):
    @proves
    def test_unit(self):
        with TestClient(app) as client:
            self.assertEqual(client.get("/dancers").json(), ["Sand"])
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of all of them."""
    example = seeing(tmp_path_factory.mktemp("seen"), TESTS)
    args = ("-p", "_hypothesis_pytestplugin", "-W", "ignore::ResourceWarning")
    found = told(example, *args)
    assert "failed" not in found.run.output.splitlines()[-1], found.run.output
    return found


def seeded(run: Told, name: str) -> Any:
    """The rows that were seeded, by table."""
    return facts_of(run, name).get("seeded")


def asked(run: Told, name: str) -> list[str]:
    """The requests as ``GET /dancers 200``, by their routes."""
    requests = facts_of(run, name).get("requests", [])
    return [f"{one['method']} {one['route']} {one['status']}" for one in requests]


@pytest.mark.parametrize(
    "name, rows",
    [
        ("usual", 1),
        ("wide", 2),
        ("by_the_apps_engine", 2),
        ("by_a_driver", 1),
        ("by_autocommit", 1),
        ("by_the_app_first", 1),
        ("by_a_fixtures_request", 1),
        ("foreign_async", 1),
        ("sync", 1),
    ],
)
@pytest.mark.slow
def test_rows_are_seen_however_they_were_seeded(run: Told, name: str, rows: int) -> None:
    """By sessions, the app's engine, past SQLAlchemy, by preparing requests, in wide fixtures."""
    assert seeded(run, name) == {"dancers": rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["came_and_went", "rolled_back", "wide_of_others", "foreign_sync"])
def test_what_does_not_stand_when_the_request_is_made_was_not_seeded(run: Told, name: str) -> None:
    """Nor is what arena_seed made, or a fixture that the test does not use."""
    assert not seeded(run, name)


@pytest.mark.parametrize(
    "name, requests",
    [
        ("usual", ["GET /dancers 200"]),
        ("sync", ["GET /dancers 200"]),
        ("foreign_async", ["POST /dancers/{name} 201", "GET /dancers 200"]),
        ("foreign_sync", ["GET /dancers 200"]),
        ("in_a_thread", ["GET /dancers 200"]),
        ("gathered", ["POST /dancers/{name} 201"] * 2),
        ("by_a_fixtures_request", ["POST /dancers/{name} 201", "GET /dancers 200"]),
        ("examples", ["POST /dancers/{name} 201", "GET /dancers 200"] * 2),
        ("unit", ["GET /dancers 200"]),
        ("wide_client", ["GET /dancers 200"]),
    ],
)
def test_requests_are_seen_whoever_makes_them(run: Told, name: str, requests: list[str]) -> None:
    """Once each, with the route that was hit; of examples those of all."""
    assert asked(run, name) == requests


@pytest.mark.parametrize("name", ["changed", "foreign_async", "gathered", "examples"])
def test_a_request_is_told_with_the_rows_that_it_changed(run: Told, name: str) -> None:
    """Also where it was made at the same time as another."""
    requests = facts_of(run, name)["requests"]
    for one in requests:
        assert one.get("changed", {}) == ({"dancers": 1} if one["method"] == "POST" else {})


def test_a_request_that_reads_what_was_seeded_is_told_so(run: Told) -> None:
    """By the statements that the app ran meanwhile."""
    [one] = facts_of(run, "usual")["requests"]
    assert one["read"] == ["dancers"]
    post, get = facts_of(run, "changed")["requests"]
    assert (post.get("read", []), get["read"]) == ([], ["dancers"])


def test_it_is_known_whether_the_test_has_looked_at_the_answer(run: Told) -> None:
    """Of clients of ours; of others it is unknown."""
    assert [one["observed"] for one in facts_of(run, "unobserved")["requests"]] == [False, True]
    assert {one.get("observed") for one in facts_of(run, "foreign_async")["requests"]} == {None}


def test_what_asserts_without_the_statement_counts(run: Told) -> None:
    """`pytest.raises` and `warns`, mocks, unittest, expected changes."""
    texts = " ".join(one["text"] for one in facts_of(run, "other_proofs")["asserted"])
    for text in ("pytest.raises(KeyError)", "pytest.warns", "assert_called_once_with"):
        assert text in texts
    [one] = facts_of(run, "unit")["asserted"]
    assert one["text"].startswith("self.assertEqual(client.get")
    [one] = facts_of(run, "expected_changes")["asserted"]
    assert (one["text"], one["after"]) == ("arena.expect_changes(…)", 1)


def test_a_place_is_told_once_with_how_often_it_passed(run: Told) -> None:
    """A loop of fifty is one line."""
    [one] = facts_of(run, "loop")["asserted"]
    assert one["times"] == 50


def test_literals_of_the_steps_are_seen_where_they_occur(run: Told) -> None:
    """In rows, whoever wrote them, in requests and in what assertions compare."""
    for name in ("usual", "by_the_apps_engine", "by_the_app_first", "by_a_driver"):
        assert facts_of(run, name)["seen"] == ["Storm"], name
    assert not facts_of(run, "foreign_sync").get("seen")


@pytest.mark.parametrize(
    "text",
    [
        *("True", "1", "1 == 1", '"text"', "x == x", "x is x", "(x == 1, 'why')", "not False"),
        *("r.status == 1 or True", "self.assertTrue(True)", "self.assertEqual(x, x)", "[1]"),
        *("r.status_code == r.status_code", "{}.get == {}.get"),
        *("check.equal(1, 1)", "check.is_not_none(len(x))", "pytest_check.is_in('', x)"),
    ],
)
def test_what_could_not_have_failed_is_constant(text: str) -> None:
    """By what stands in it alone."""
    assert is_constant(text)


@pytest.mark.parametrize(
    "text",
    [
        *("x", "x == y", "r.status_code == 201", "f() == f()", "x != x", "len(x)", "r.json()"),
        *("a or b", "self.assertEqual(a, b)", "not x", "arena.expect_changes(…)", "x ==", "1 in x"),
        *("(x == 1) and y", "x == (await get())", "with pytest.raises(KeyError):"),
        *(
            "check.equal(a, b)",
            "check.is_in(1, x)",
            "check.is_false(x)",
            "check.is_valid(1, 1) == x",
        ),
    ],
)
def test_what_could_have_failed_is_not_constant(text: str) -> None:
    """A doubt is decided for the test."""
    assert not is_constant(text)


ONE = """
from app import Dancer

@proves
async def test_usual(client, db_session):
    db_session.add(Dancer(name="Storm"))
    assert (await client.get("/dancers")).json()
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "optimized"])
def test_where_assertions_cannot_be_heard_it_is_unknown_and_never_no(
    tmp_path: Path, way: str
) -> None:
    """`--assert=plain`, `python -O`."""
    args = ("--assert=plain",) if way == "plain" else ("-W", "ignore")  # pytest warns of it
    # What is compiled for it is kept: no other run has compiled the libraries so.
    optimized = {"PYTHONOPTIMIZE": "1", "PYTHONDONTWRITEBYTECODE": ""}
    env = optimized if way == "optimized" else {}
    found = told(seeing(tmp_path, ONE), *args, env=env)
    assert found.statuses == {"usual": "UNKNOWN"}
    assert ("--assert=plain" if way == "plain" else "python -O") in found.reason("usual")


@pytest.mark.slow
def test_a_cache_of_compiled_tests_makes_nobody_deaf(tmp_path: Path) -> None:
    """Pytest keeps what it has compiled, with calls for assertions or without."""
    example = seeing(tmp_path, ONE)
    caching = {"PYTHONDONTWRITEBYTECODE": ""}
    example.run("--scenarios=off", env=caching).expect(passed=1)
    for _ in range(2):
        assert told(example, env=caching).statuses == {"usual": "PROVEN"}
    example.run("--scenarios=off", env=caching).expect(passed=1)
    compiled = [path.name for path in (example.folder / "__pycache__").glob("test_it*")]
    assert len(compiled) == 2


@pytest.mark.slow
def test_everything_is_as_it_was_when_the_run_is_over(tmp_path: Path) -> None:
    """What was wrapped is not, any more."""
    check = """
import unittest, pytest, _pytest.raises, app
from unittest import mock

def pytest_unconfigure(config):
    config.add_cleanup(lambda: None)

def names():
    kinds = (unittest.TestCase.assertEqual, mock.Mock.assert_called, type(app.app).__call__)
    return [one.__code__.co_filename for one in (*kinds, _pytest.raises.RaisesExc.__exit__)]

before = names()
import atexit
atexit.register(lambda: print("SAME" if names() == before else names()))
"""
    example = seeing(tmp_path, ONE).with_files(watcher=check)
    done = example.run("-p", "watcher", "-p", "no:cacheprovider")
    done.says("SAME")
