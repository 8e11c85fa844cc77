"""A suite's own `arena_app`, in a test that asks for `arena` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

OF_A_CLASS = """
import pytest
from fastapi import FastAPI
other = FastAPI()

@other.get("/dancers")
async def dancers():
    return ["other"]

class TestOther:
    @pytest.fixture
    def arena_app(self):
        return other

    async def test_async(self, arena):
        async with arena.client() as mine:
            assert (await mine.get("/dancers")).json() == ["other"]

    def test_sync(self, arena):
        with arena.test_client() as mine:
            assert mine.get("/dancers").json() == ["other"]

    @pytest.fixture
    def answer(self, arena):
        with arena.test_client() as mine:
            return mine.get("/dancers").json()

    def test_of_a_fixture(self, answer):
        assert answer == ["other"]


async def test_usual(arena):
    async with arena.client() as mine:
        assert (await mine.get("/dancers")).json() == ["Sand"]

class TestClassScope:
    @pytest.fixture(scope="class")
    @classmethod
    def arena_app(cls):
        return other

    async def test_arena_only(self, arena):
        async with arena.client() as mine:
            assert (await mine.get("/dancers")).json() == ["other"]

    def test_sync_only(self, arena):
        with arena.test_client() as mine:
            assert mine.get("/dancers").json() == ["other"]

    def test_client(self, test_client):
        assert test_client.get("/dancers").json() == ["other"]

def test_usual_sync(arena):
    with arena.test_client() as mine:
        assert mine.get("/dancers").json() == ["Sand"]
"""

OF_A_MODULE = """
import pytest
from test_it import other

@pytest.fixture(scope="module")
def arena_app():
    return other

async def test_async(arena):
    async with arena.client() as mine:
        assert (await mine.get("/dancers")).json() == ["other"]

def test_sync(arena):
    with arena.test_client() as mine:
        assert mine.get("/dancers").json() == ["other"]

async def test_client(client):
    assert (await client.get("/dancers")).json() == ["other"]
"""


def test_clients_of_arena_talk_to_the_app_of_the_suites_fixture(example: Example) -> None:
    """The fixture is a class's or a module's. Elsewhere the option names the app."""
    project = example.with_files(test_it=OF_A_CLASS, test_module=OF_A_MODULE)
    project.run("-p", "no:randomly").expect(passed=11)
