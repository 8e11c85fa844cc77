"""pyfakefs replaces the file system under a test, and pytest-arena's databases are real files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

pytest.importorskip("pyfakefs", reason="`make test-full` has it, in an environment of its own")

AGAIN = """

async def test_of_a_fake(fs, client, db_session, arena):
    fs.create_file("/data/upload.txt", contents="text")
    db_session.add(Dancer(name="Dune"))
    await client.post("/dancers/Ann")
    assert (await client.get("/dancers")).json() == ["Sand", "Dune", "Ann"]
    assert arena.changes()["dancers"].inserted
    with open("/data/upload.txt") as file:
        assert file.read() == "text"


def test_faked_later(test_client, fs):
    test_client.post("/dancers/Ann")
    assert test_client.get("/dancers").json() == ["Sand", "Ann"]


def test_by_a_patcher(test_client):
    from pyfakefs.fake_filesystem_unittest import Patcher

    with Patcher():
        test_client.post("/dancers/Ann")
        assert test_client.get("/dancers").json() == ["Sand", "Ann"]


def test_of_no_fake(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""

FIRST = f"""
from app import Dancer


def test_first(fs, test_client):
    test_client.post("/dancers/Ann")
    assert test_client.get("/dancers").json() == ["Sand", "Ann"]
{AGAIN}
"""

WIDE = """
import pytest
from app import Dancer


@pytest.fixture(scope="module", autouse=True)
def wide(fs_module, arena):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()


def test_one(test_client):
    test_client.post("/dancers/Ann")
    assert test_client.get("/dancers").json() == ["Sand", "Wide", "Ann"]


def test_two(test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Wide"]
"""


@pytest.mark.parametrize("tests, passed", [(FIRST, 5), (WIDE, 2)], ids=["tests", "a module"])
def test_databases_are_real_under_a_fake_file_system(
    example: Example, tests: str, passed: int
) -> None:
    """Also if the first use of a database is under the fake: its template is built outside."""
    run = example.with_files(test_it=tests).run("-p", "pyfakefs.pytest_plugin")
    run.expect(passed=passed).never_says("did not pass its trial", "TemplateError", "A501")
