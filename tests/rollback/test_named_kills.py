"""A run in a named database that is killed leaves nothing there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.rollback.named import content
from tests.rollback.test_named_database import ONE
from tests.servers.postgresql import rows
from tests.servers.waiting import until

if TYPE_CHECKING:
    from tests.rollback.named import Content, Named

WRITES = """
async def test_writes(client):
    for number in range(100_000):
        await client.post(f"/dancers/{number}")
"""


def unsequenced(dump: Content) -> Content:
    """Return content without the numbers of sequences, which no transaction restores."""
    return {name: texts for name, texts in dump.items() if not name.endswith("_seq")}


def test_a_kill(named: Named) -> None:
    """All rows and catalogs are as before. The next run works."""
    before = unsequenced(content(named.name))
    process = named.of(WRITES).start(env=named.env)
    sessions = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{named.name}'"
    until(lambda: bool(rows(f"{sessions} AND query ~ 'INSERT INTO dancers'")), "the run writes")
    process.kill()
    process.communicate()
    until(lambda: not rows(sessions), "the sessions of the killed run end")
    assert unsequenced(content(named.name)) == before
    named.test(ONE).expect(passed=1)
