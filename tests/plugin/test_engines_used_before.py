"""An app that has used its engine before pytest begins, as ``flask test`` and ``run.py`` do."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example, untouched
from tests.servers.postgresql import URL, create_database, rows, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.example import Example

PLUGINS = '"-p", "pytest_asyncio.plugin", "-p", "pytest_arena.plugin"'
RUN = f"""
import asyncio
import sys
import pytest
import app
from sqlalchemy import select
from sqlalchemy.orm import Session

USES_IT
sys.exit(pytest.main([{PLUGINS}, *sys.argv[1:]]))
"""
USES = {
    "engine": "print(app.names(app.engine))",
    "held": "app.held = app.engine.connect()",
    "session": "app.session = Session(app.engine); app.session.scalars(select(app.Dancer)).all()",
}
TEST = """
import app

def test_it():
    with app.engine.connect() as connection:
        pass
    assert app.names(app.engine) == []
    app.add(app.engine, "Ghost")

def test_again():
    assert app.names(app.engine) == []
"""
OF_ASYNC = """
import app

async def test_it():
    assert await app.anames(app.engine) == []
    await app.aadd(app.engine, "Ghost")

async def test_again():
    assert await app.anames(app.engine) == []
"""


def run_py(example: Example, uses: str) -> Example:
    """Return the project with a script that uses the engine and then runs pytest."""
    return example.with_paths({"run.py": RUN.replace("USES_IT", uses)})


@pytest.mark.slow
def test_an_engine_that_was_used_before_pytest_reaches_the_tests_database(tmp_path: Path) -> None:
    """Its idle connection is dropped."""
    example = run_py(small_example(tmp_path, test_it=TEST), USES["engine"])
    with untouched(example):
        example.python("run.py").expect(passed=2).never_says("refused", "before pytest began")


@pytest.mark.parametrize("use", ["held", "session"])
def test_a_connection_in_use_from_before_pytest_is_refused(tmp_path: Path, use: str) -> None:
    """Also that of a session that has read."""
    example = run_py(small_example(tmp_path, test_it=TEST), USES[use])
    with untouched(example):
        run = example.python("run.py")
    assert run.status == pytest.ExitCode.USAGE_ERROR, run.output
    run.says("dev.db is open since before pytest began", "[A101]")


@pytest.fixture
def dev_database() -> Iterator[str]:
    """A database of the developer's, with one row."""
    name = f"dev_{secrets.token_hex(4)}"
    create_database(name)
    run("CREATE TABLE dancers (name text PRIMARY KEY)", database=name)
    run("INSERT INTO dancers VALUES ('Precious')", database=name)
    yield name
    run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "psycopg_async"])
def test_an_engine_on_a_server_that_was_used_before_pytest(
    tmp_path: Path, dev_database: str, driver: str
) -> None:
    """The async engine is used in another loop before."""
    url = URL.set(drivername=f"postgresql+{driver}", database=dev_database)
    shown = url.render_as_string(hide_password=False)
    uses, test, engine = USES["engine"], TEST, f"create_engine({shown!r})"
    if driver == "psycopg_async":
        uses = "print(asyncio.run(app.anames(app.engine)))"
        test = OF_ASYNC
        engine = f"create_async_engine({shown!r})"
    example = small_example(tmp_path, test_it=test)
    example = example.change("app.py", 'create_engine("sqlite:///dev.db")', engine)
    example = run_py(example, uses)
    server = URL.render_as_string(hide_password=False)
    example.python("run.py", env={"ARENA_DATABASE": server}).expect(passed=2)
    assert rows("SELECT name FROM dancers", dev_database) == [("Precious",)]
