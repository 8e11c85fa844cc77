"""Which roles can have their tests undone, and what is said to those that cannot?"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import open_control
from tests.plugin.private_server import PrivateServer, on_postgresql, private_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example, Run

ROLES = {
    "plain": ["CREATE ROLE {role} LOGIN CREATEDB"],
    "bypassing": ["CREATE ROLE {role} LOGIN CREATEDB BYPASSRLS"],
    "hosted": ["CREATE ROLE {role} LOGIN CREATEDB CREATEROLE IN ROLE pg_monitor"],
    "almighty": ["CREATE ROLE {role} LOGIN SUPERUSER"],
}

TESTS = """
import pytest
from app import Dancer


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()


@pytest.mark.parametrize("turn", range(3))
def test_each(test_client, arena, wide, turn):
    assert arena.isolation == EXPECTED
    assert test_client.get("/dancers").json() == ["Sand", "Wide"]
    assert test_client.post("/dancers/Dune").status_code == 201
"""

USING = "def test_first(test_client):\n    test_client.get('/dancers')\n"

# The policy lets no row in.
SEALED = """
from sqlalchemy import text
from app import Dancer


async def seed(session):
    for said in ("ENABLE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY"):
        await session.execute(text(f"ALTER TABLE dancers {said}"))
    await session.execute(text("CREATE POLICY own ON dancers USING (false)"))
    session.add(Dancer(name="Sand"))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for all tests here, with the roles on it."""
    with private_server() as found:
        yield found


class Roles:
    """The example's app on the server, entered by roles."""

    def __init__(self, example: Example, server: PrivateServer) -> None:
        self.project = on_postgresql(example, test_it=TESTS)
        self.server = server
        if not list(server.place.rglob("*.used")):
            first = self.project.with_files(test_first=USING)
            first.run("test_first.py", env=server.env).expect(passed=1)

    def run(self, role: str, expected: str, *words: str, **files: str) -> Run:
        """Run the tests as a role."""
        if not self.server.rows(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
            for statement in ROLES[role]:
                self.say(statement.replace("{role}", role))
        url = self.server.url.replace("postgres@", f"{role}@")
        test = TESTS.replace("EXPECTED", repr(expected))
        project = self.project.with_files(**{"test_it": test, **files})
        return project.run("test_it.py", *words, env={**self.server.env, "ARENA_DATABASE": url})

    def say(self, statement: str) -> None:
        """Tell the server something, as its superuser."""
        with closing(open_control(self.server.address())) as control:
            control.run(statement)


@pytest.fixture
def roles(example: Example, server: PrivateServer) -> Roles:
    """On the server that all share."""
    return Roles(example, server)


@pytest.mark.slow
def test_a_superuser_has_its_tests_undone(roles: Roles) -> None:
    """The journal needs event triggers and the role of a replica."""
    run = roles.run("almighty", "undo").expect(passed=3)
    run.says("isolation undo").never_says("isolated by clone")
    roles.server.check_clean(run.output)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["plain", "bypassing", "hosted"])
def test_any_other_role_gets_clones_and_a_line(roles: Roles, role: str) -> None:
    """The line says why, and what to do."""
    run = roles.run(role, "clone").expect(passed=3)
    [line] = [text for text in run.output.splitlines() if "isolated by clone" in text]
    assert f"the role {role} is no superuser" in line
    assert "the URL of a superuser in arena_database, or arena_database = own" in line


@pytest.mark.slow
def test_undo_that_was_named_is_an_error_without_the_rights(roles: Roles) -> None:
    """Tests that ran another way would prove nothing."""
    run = roles.run("plain", "undo", "--arena-isolation=undo").expect(1, errors=3)
    run.says(
        "arena_isolation = undo: the role plain is no superuser",
        "arena_isolation in ",
        "the URL of a superuser in arena_database",
        "arena_isolation = auto",
    )
    run.never_says("Traceback", "isolation clone")


@pytest.mark.slow
def test_a_marker_that_asks_for_undo_without_the_rights(roles: Roles) -> None:
    """The test that bears it fails, and says why; the others run."""
    marked = TESTS.replace("EXPECTED", "'clone'") + (
        "\n\n@pytest.mark.arena(isolation='undo')\ndef test_marked(test_client): ...\n"
    )
    run = roles.run("plain", "clone", test_it=marked).expect(1, passed=3, errors=1)
    run.says("isolation='undo' is not available: the role plain is no superuser")


@pytest.mark.slow
def test_clone_that_was_named_asks_for_no_rights(roles: Roles) -> None:
    """And nothing is said of them."""
    run = roles.run("plain", "clone", "--arena-isolation=clone").expect(passed=3)
    run.never_says("isolated by clone", "superuser")


@pytest.mark.slow
def test_a_seed_that_policies_hinder_needs_a_role_that_goes_past_them(roles: Roles) -> None:
    """The message names the right that is missing."""
    run = roles.run("plain", "clone", seed=SEALED).expect(1, errors=3)
    run.says('new row violates row-level security policy for table "dancers"', "[A401]")
    run.says("next: ALTER ROLE … BYPASSRLS", "or arena_database = own")
    roles.run("bypassing", "clone", seed=SEALED).expect(passed=3)


@pytest.mark.slow
def test_undo_is_not_to_be_had_on_sqlite(example: Example) -> None:
    """Named in the configuration or by a marker, which fails no later test."""
    named = example.with_files(test_it=USING).run("test_it.py", "--arena-isolation=undo")
    run = named.expect(1, failed=1)
    run.says("arena_isolation = undo does not exist on SQLite", "(here: copy)")
    later = USING.replace("first", "later")
    marked = f"import pytest\n\n@pytest.mark.arena(isolation='undo')\n{USING}\n\n{later}"
    run = example.with_files(test_it=marked).run("test_it.py").expect(1, passed=1, failed=1)
    run.says("isolation='undo' is not available: SQLite", "has only the isolation copy")


def test_rollback_is_copy_on_sqlite(example: Example) -> None:
    """Named in the configuration or by a marker. One line of the summary says so."""
    project = example.with_files(test_it=f"{USING}\n\n{USING.replace('first', 'later')}")
    run = project.run("test_it.py", "--arena-isolation=rollback").expect(passed=2)
    run.says("isolation copy")
    assert run.output.count("rollback on SQLite is copy") == 1
    marked = f"import pytest\n\n@pytest.mark.arena(isolation='rollback')\n{USING}"
    run = example.with_files(test_it=marked).run("test_it.py").expect(passed=1)
    run.says("rollback on SQLite is copy")
