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

REPLICA = "GRANT SET ON PARAMETER session_replication_role TO {role}"
# What each role is made of. The last two have rights as the roles have that hosters give out: a
# group that may be a replica, without being a superuser; and one that may not.
ROLES = {
    "plain": ["CREATE ROLE {role} LOGIN CREATEDB"],
    "replica": ["CREATE ROLE {role} LOGIN CREATEDB", REPLICA],
    "bypassing": ["CREATE ROLE {role} LOGIN CREATEDB BYPASSRLS", REPLICA],
    "member": [
        "CREATE ROLE {role}_group",
        REPLICA.replace("{role}", "{role}_group"),
        "CREATE ROLE {role} LOGIN CREATEDB CREATEROLE IN ROLE {role}_group",
    ],
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

# Rows that even the owner of the table sees only by a policy, which leaves nobody out.
FORCED = """
from sqlalchemy import text
from app import Dancer


async def seed(session):
    session.add(Dancer(name="Sand"))
    await session.flush()
    for said in ("ENABLE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY"):
        await session.execute(text(f"ALTER TABLE dancers {said}"))
    await session.execute(text("CREATE POLICY own ON dancers USING (true)"))
"""

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

# Only a superuser may be told of them by the server.
WITHOUT_EVENT_TRIGGERS = """
import pytest
from sqlalchemy import inspect, text


@pytest.mark.parametrize("turn", range(2))
def test_ddl(test_client, arena, turn):
    with arena.session() as session:
        assert inspect(session.connection()).get_table_names() == ["dancers"]
        session.execute(text("CREATE TABLE more (id int)"))
        session.execute(text("ALTER TABLE dancers ADD COLUMN more int"))
        session.commit()
    assert arena.isolation == "undo"
"""

TOLD_WITHOUT_EVENT_TRIGGERS = """
import pytest
from sqlalchemy import text
from pytest_arena import inserted

ALTERATIONS = [
    "DROP TABLE dancers",
    "CREATE TABLE more AS SELECT 1 AS number",
    "ALTER TABLE dancers ADD COLUMN more int",
    "CREATE VIEW seen AS SELECT 1 AS number",
]


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_it_is_told(arena, alteration):
    with pytest.raises(AssertionError, match="the schema"), arena.expect_changes():
        with arena.session() as session:
            session.execute(text(alteration))
            session.commit()
    assert "the schema" in arena.changes().tables


def test_what_changes_rows_alone_is_not(arena, test_client):
    with arena.expect_changes(dancers=inserted(1)):
        test_client.post("/dancers/Dune")
    with arena.expect_changes():
        test_client.get("/dancers")
    assert arena.changes().tables == ("dancers",)
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
@pytest.mark.parametrize(
    "role",
    [
        "replica",
        pytest.param("almighty", marks=pytest.mark.slow),
        pytest.param("bypassing", marks=pytest.mark.slow),
        pytest.param("member", marks=pytest.mark.slow),
    ],
)
def test_a_role_that_may_be_a_replica_has_its_tests_undone(roles: Roles, role: str) -> None:
    """By itself or by a group; being a superuser is not needed."""
    run = roles.run(role, "undo").expect(passed=3)
    run.says("isolation undo").never_says("isolated by clone")
    roles.server.check_clean(run.output)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["plain", pytest.param("hosted", marks=pytest.mark.slow)])
def test_a_role_that_may_not_gets_clones_and_a_line(roles: Roles, role: str) -> None:
    """It says why, and what would do; that is right, once somebody has done it."""
    run = roles.run(role, "clone").expect(passed=3)
    line = "\n".join(text for text in run.output.splitlines() if "isolated by clone" in text)
    assert f"the role {role} may not" in line, run.output
    assert 'permission denied to set parameter "session_replication_role"' in line
    told = f'GRANT SET ON PARAMETER session_replication_role TO "{role}";'
    assert told in line
    assert run.output.count("isolated by clone") == 1
    roles.say(told)
    roles.run(role, "undo").expect(passed=3).says("isolation undo")
    roles.say(told.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))


@pytest.mark.slow
def test_undo_that_was_named_is_an_error_without_the_rights(roles: Roles) -> None:
    """Tests that ran another way would prove nothing."""
    run = roles.run("plain", "undo", "--arena-isolation=undo").expect(1, errors=3)
    run.says(
        "arena_isolation = undo: the role plain may not: permission denied",
        "arena_isolation in ",
        'GRANT SET ON PARAMETER session_replication_role TO "plain";',
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
    run.says("isolation='undo' is not available: the role plain may not: permission denied")


@pytest.mark.slow
def test_clone_that_was_named_asks_for_no_rights(roles: Roles) -> None:
    """And nothing is said of them."""
    run = roles.run("plain", "clone", "--arena-isolation=clone").expect(passed=3)
    run.never_says("isolated by clone", "session_replication_role")


@pytest.mark.slow
def test_forced_policies_need_a_role_that_goes_past_them_pitfall_048(roles: Roles) -> None:
    """Row level security hides from the journal what it has to take back, but from BYPASSRLS."""
    for role, expected in (("replica", "clone"), ("bypassing", "undo"), ("almighty", "undo")):
        run = roles.run(role, expected, seed=FORCED).expect(passed=3)
        assert ("isolated by clone" in run.output) == (expected == "clone"), run.output


@pytest.mark.slow
def test_a_seed_that_policies_hinder_needs_a_role_that_goes_past_them(roles: Roles) -> None:
    """The message names the right that is missing."""
    run = roles.run("replica", "undo", seed=SEALED).expect(1, errors=3)
    run.says('new row violates row-level security policy for table "dancers"', "[A401]")
    run.says("next: ALTER ROLE … BYPASSRLS", "or arena_database = own")
    roles.run("bypassing", "undo", seed=SEALED).expect(passed=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "role, changed",
    [
        ("replica", "the schema was changed: public.dancers, public.more"),
        ("almighty", "ALTER TABLE public.dancers, CREATE TABLE public.more"),
    ],
)
def test_a_changed_schema_is_noticed_with_and_without_event_triggers(
    roles: Roles, role: str, changed: str
) -> None:
    """Which only a superuser may create: without, the catalogs are compared."""
    run = roles.run(role, "undo", test_it=WITHOUT_EVENT_TRIGGERS).expect(passed=2)
    run.says(f"its database was replaced: {changed}")


@pytest.mark.slow
def test_expected_changes_of_the_schema_without_event_triggers_pitfall_029(roles: Roles) -> None:
    """Nothing notes them at once, and nobody's expectation is met by a table that is gone."""
    roles.run("replica", "undo", test_it=TOLD_WITHOUT_EVENT_TRIGGERS).expect(passed=5)


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
