"""Answers that a generator of a Flask app makes while Flask's own test client reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_wsgi import flask  # noqa: F401 - a fixture of this module, too

if TYPE_CHECKING:
    from tests.example import Example

ROUTES = """

@app.post("/late/<name>")
def late(name):
    def parts():
        yield "one"
        Session.add(Dancer(name=name))
        Session.commit()
        yield "two"

    return parts()


@app.post("/flushed/<name>")
def flushed(name):
    def parts():
        session = Session()
        session.add(Dancer(name=name))
        session.flush()
        yield "one"
        session.close()

    return parts()


@app.post("/fails")
def fails():
    def parts():
        yield "one"
        raise ValueError("no dancer")

    return parts()
"""
TESTS = """
import pytest
from app import app


@pytest.fixture
def client():
    return app.test_client()


def test_read(arena, client):
    for name in "ab":
        assert client.post(f"/late/{name}").text == "onetwo"
        assert [row.after["name"] for row in arena.changes(-1)["dancers"].inserted] == [name]


def test_lost(client):
    assert client.post("/flushed/a").text == "one"


def test_left(client):
    assert client.post("/late/a").status_code == 200


def test_closed(client):
    with client.post("/late/a"):
        pass
    client.head("/dancers")
    client.get("/dancers")


def test_raises(client):
    with pytest.raises(ValueError, match="no dancer"):
        client.post("/fails").data


def test_fails(client):
    client.post("/late/a").data
    client.post("/late/b")
    assert client is None
"""


@pytest.mark.slow
def test_what_a_generator_writes_while_the_test_reads_it_is_the_requests(flask: Example) -> None:  # noqa: F811 - the fixture
    """An answer that the test has neither read nor closed is named."""
    app = flask.files["app.py"] + ROUTES
    run = flask.with_files(app=app, test_it=TESTS).run("-q").expect(1, passed=5, failed=1)
    run.says("test_lost: POST /flushed/a 200 wrote dancers (1 row) and never committed it: lost")
    run.says("test_left has ended, and work that a request had begun was cut off")
    run.says("POST /late/a was not read to its end: response.data, or response.close()")
    run.says("POST /late/a 200  dancers +1\n    + dancers id=2  name='a'")
    run.says("POST /late/b 200  nothing\n    its answer was still open")
    run.never_says("test_closed", "then, outside of requests")
