"""`arena doctor --migrations`."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import pytest

from pytest_arena._cli._serve import check_unchanged, run_without_tests
from pytest_arena._config._project import read_project
from pytest_arena._databases._app_databases import states_below
from pytest_arena._databases._builders import is_alembic
from pytest_arena._fixtures import RUNS
from pytest_arena.errors import ArenaError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena._config._read import Config
    from pytest_arena._databases._migrations import Comparison

_DIFFERENT = 1
_USAGE = 2
_OPTIONS = (
    *("-p", "no:cacheprovider", "--override-ini=required_plugins="),
    *("--arena-seed=", "--arena-migrations=warn"),
)


def compare_migrations() -> int:
    """Build a database by the migrations, and write its differences from the models to stdout.

    Returns the exit status.

    Raises:
        ConfigError: the project has no migrations, or its app names no database.
    """
    config = read_project()
    schemas = _migrations_of(config)
    states = states_below(config.root)
    os.environ.pop("PYTEST_ADDOPTS", None)
    sys.path.insert(0, "")  # as `python -m pytest` has it
    lines = [f"{name} = {ini}" if name else ini for name, ini in schemas.items()]
    schema = "--arena-schema=" + "\n".join(lines)
    plugin = ComparisonPlugin(tuple(schemas))
    output = io.StringIO()
    with redirect_stdout(output):
        run_without_tests([*_OPTIONS, schema], plugin)
    check_unchanged(states, "arena doctor --migrations")
    if plugin.error is not None:
        raise plugin.error
    if not plugin.has_ended:
        sys.stderr.write(output.getvalue())
        return _USAGE
    for ini in dict.fromkeys(schemas.values()):
        comparison = plugin.comparisons.get(ini)
        sys.stdout.write(_page(ini, comparison))
    return _DIFFERENT if plugin.comparisons else 0


def _migrations_of(config: Config) -> Mapping[str, str]:
    """Return the alembic.ini of each database by its name. "" is the app's first database."""
    values = config.schema.items()
    schemas = {name: value for name, value in values if value.endswith(".ini")}
    if schemas:
        return schemas
    if is_alembic(config.root / "alembic.ini"):
        return {"": "alembic.ini"}
    raise ConfigError(
        "arena doctor --migrations: the project has no Alembic migrations",
        why="the command compares the migrations with the models",
        cause=f"arena_schema names no alembic.ini, and {config.root} has none",
        fix="arena_schema = <folder>/alembic.ini   in pytest's configuration",
    )


class ComparisonPlugin:
    """A plugin of pytest that builds templates instead of running tests.

    pytest still collects the tests, so that it imports the same modules as a test run.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self.comparisons: dict[str, Comparison] = {}
        self.error: ArenaError | None = None
        self.has_ended = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Build each database by its migrations."""
        run = RUNS[session.config]
        try:
            for name in self._names:
                run.databases.ensure_content(run.database(name))
        except ArenaError as error:
            self.error = error
        self.comparisons.update(run.databases.provision.comparisons())
        self.has_ended = True
        return True


def _page(ini: str, comparison: Comparison | None) -> str:
    """Return the lines about one alembic.ini. ``comparison`` is None without a difference."""
    if comparison is None:
        return f"{ini}: the migrations match the models\n"
    if comparison.failure:
        return f"{ini}: the migrations were not compared with the models: {comparison.failure}\n"
    lines = [
        f"{ini}: the migrations differ from the models",
        *(f"    {difference}" for difference in comparison.differences),
        comparison.next_step(ini),
    ]
    return "\n".join(lines) + "\n"
