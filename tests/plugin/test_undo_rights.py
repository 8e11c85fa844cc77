"""Which logins can have their tests undone, and what do the others get?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import on_postgresql
from tests.servers.postgresql import URL, own_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example

TESTS = """
import pytest


@pytest.mark.parametrize("turn", range(2))
def test_each(test_client, arena, turn):
    assert arena.isolation == "clone"
    assert test_client.get("/dancers").json() == ["Sand"]
    assert test_client.post("/dancers/Dune").status_code == 201


@pytest.mark.arena(isolation="undo")
def test_marked(test_client): ...
"""
# The policy lets no row in.
SEALED = """
from sqlalchemy import text
from app import Dancer


async def seed(session):
    for how in ("ENABLE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY"):
        await session.execute(text(f"ALTER TABLE dancers {how}"))
    await session.execute(text("CREATE POLICY own ON dancers USING (false)"))
    session.add(Dancer(name="Sand"))
"""
USING = "def test_{}(test_client):\n    test_client.get('/dancers')\n"


@pytest.fixture
def limited() -> Iterator[dict[str, str]]:
    with own_registry("CREATEDB") as role:
        url = URL.set(username=role, password=None)
        yield {"ARENA_DATABASE": url.render_as_string(hide_password=False)}


def test_a_login_that_is_no_superuser_gets_clones(
    example: Example, limited: dict[str, str]
) -> None:
    """A line says why, and what to do. A test that asks for undo fails."""
    project = on_postgresql(example, test_it=TESTS)
    run = project.run("test_it.py", env=limited).expect(1, passed=2, errors=1)
    run.says("is no superuser. For undo: the URL of a superuser in arena_database")
    run.says("isolation='undo' is not available: the role arena_test_")
    run = project.run("test_it.py::test_each", "--arena-isolation=undo", env=limited)
    run.says("arena_isolation = undo: the role arena_test_")


def test_a_seed_that_policies_stop_names_the_right(
    example: Example, limited: dict[str, str]
) -> None:
    """The login owns the tables, which force their policies on it."""
    project = on_postgresql(example, test_it=USING.format("it"), seed=SEALED)
    run = project.run("test_it.py", env=limited)
    run.says("new row violates row-level security policy", "[A401]")
    run.says("next: ALTER ROLE … BYPASSRLS", "or arena_database = own")


def test_isolations_that_sqlite_does_not_have(example: Example) -> None:
    marked = f"import pytest\n\n@pytest.mark.arena(isolation='undo')\n{USING.format('it')}"
    project = example.with_files(test_it=f"{marked}\n\n{USING.format('later')}")
    run = project.run("test_it.py", "--arena-isolation=clone").expect(1, passed=1, errors=1)
    run.says("isolation='undo' is not available: SQLite", "does not have it")
    run = project.run("test_it.py::test_later", "--arena-isolation=undo").expect(1, failed=1)
    run.says("arena_isolation = undo does not exist on SQLite", "(here: copy, clone, rollback)")
