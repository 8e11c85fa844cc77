"""A database that pytest-arena has not created, and a role without CREATEDB that owns it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pytest_arena._postgresql._control import literal, open_control
from tests.servers.postgresql import URL, address, run

if TYPE_CHECKING:
    from tests.example import Example, Run

PASSWORD = "hush-hush"  # noqa: S105 - the server asks for none
APPS = "postgresql+asyncpg://me:s3cret@db.example.org/shop"
# What autovacuum and ANALYZE write, which is no content. Operators and the like are long lists, and
# what would add to them adds to others.
COUNTED = "{relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid,log_cnt}"
CATALOGS = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace = 'pg_catalog'::regnamespace
AND c.relname !~ '^pg_(statistic|authid|database|shdepend|largeobject$)'
AND c.relname !~ '^pg_(am|cast|collation|description|op|ts_)'
UNION ALL SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relkind IN ('r', 'S') AND c.relnamespace = 'public'::regnamespace ORDER BY 1
"""


Content: TypeAlias = "dict[str, list[str]]"


def content(database: str) -> Content:
    """Return all catalogs, rows and sequences of a database, without what autovacuum writes."""
    dump: Content = {}
    with closing(open_control(address(database))) as control:
        for (table,) in control.rows(CATALOGS):
            query = f"SELECT (to_jsonb(t) - {literal(COUNTED)}::text[])::text"
            found = control.rows(f"{query} FROM (SELECT * FROM {table}) t ORDER BY 1")
            dump[table] = [str(row) for row in found]
    return dump


MIGRATED = (
    "CREATE TABLE dancers (id serial PRIMARY KEY, name text UNIQUE NOT NULL)",
    "INSERT INTO dancers (name) VALUES ('Found')",
)


@dataclass(frozen=True)
class Named:
    """A database, and the role of the tests, which owns it."""

    example: Example
    name: str

    @property
    def url(self) -> str:
        """The value of arena_database."""
        return f"postgresql://{self.name}:{PASSWORD}@{URL.host}:{URL.port}/{self.name}"

    @property
    def env(self) -> dict[str, str]:
        """The variables of a run in it."""
        return {"ARENA_DATABASE": self.url, "PYTEST_ADDOPTS": "--arena-isolation=rollback"}

    def of(self, test: str) -> Example:
        """Return the example's app, with a URL of production, and tests."""
        example = self.example
        if "sqlite" in example.files["app.py"]:
            example = example.change("app.py", "sqlite+aiosqlite:///dev.db", APPS)
        return example.with_files(test_it=test)

    def test(self, text: str, *args: str, **env: str) -> Run:
        """Run tests of the example's app in it. They leave nothing."""
        before = content(self.name)
        ran = self.of(text).run(*args, env={**self.env, **env})
        assert content(self.name) == before
        return ran.never_says(PASSWORD)

    def run(self, *statements: str) -> None:
        """Execute statements as its owner."""
        run(f"SET ROLE {self.name}", *statements, database=self.name)

    def build(self, *statements: str) -> None:
        """Make it what a team's migrations make of it."""
        self.run(*(statements or MIGRATED))
