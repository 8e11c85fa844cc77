"""`arena doctor --migrations`: builds the database by the migrations, and compares the models."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import pytest

from pytest_arena._config._project import read_project
from pytest_arena._databases._builders import is_alembic
from pytest_arena._fixtures import RUNS
from pytest_arena.errors import ArenaError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena._config._read import Config
    from pytest_arena._databases._migrations import Comparison

_DIFFERENT, _USAGE = 1, 2
# What a suite has for its runs (coverage, workers, a limit of time) is not meant for this one.
_OPTIONS = (
    *("-p", "no:timeout", "-p", "no:cacheprovider", "--override-ini=addopts="),
    *("--override-ini=required_plugins=", "--arena-scenarios=off"),
    *("--arena-seed=", "--arena-migrations=warn"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # pytest-arena itself is no test
)


def compare_migrations() -> int:
    """Compare, write each difference to stdout, and return the exit status.

    Raises:
        ConfigError: the project has no migrations, or its app names no database.
    """
    schemas = _migrations_of(read_project())
    os.environ.pop("PYTEST_ADDOPTS", None)
    sys.path.insert(0, "")  # as `python -m pytest` has it
    lines = [f"{name} = {ini}" if name else ini for name, ini in schemas.items()]
    comparing = Comparing(tuple(schemas))
    words = io.StringIO()
    with redirect_stdout(words):
        pytest.main([*_OPTIONS, "--arena-schema=" + "\n".join(lines)], plugins=[comparing])
    if comparing.error is not None:
        raise comparing.error
    if not comparing.has_ended:
        sys.stderr.write(words.getvalue())
        return _USAGE
    for ini in dict.fromkeys(schemas.values()):
        sys.stdout.write(_page(ini, comparing.comparisons.get(ini)))
    return _DIFFERENT if comparing.comparisons else 0


def _migrations_of(config: Config) -> Mapping[str, str]:
    """Return the files of Alembic by the names of their databases; "" is the app's first one."""
    schemas = {name: value for name, value in config.schema.items() if value.endswith(".ini")}
    if schemas:
        return schemas
    if is_alembic(config.root / "alembic.ini"):
        return {"": "alembic.ini"}
    raise ConfigError(
        "arena doctor --migrations: there are no migrations of Alembic",
        why="they are compared with the models",
        cause=f"arena_schema names no alembic.ini, and {config.root} has none",
        fix="arena_schema = <folder>/alembic.ini   in pytest's configuration",
    )


class Comparing:
    """A plugin for one run of pytest, which builds templates in the place of running tests.

    pytest collects the tests, so that the modules are imported that a run imports.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self.comparisons: dict[str, Comparison] = {}
        self.error: ArenaError | None = None
        self.has_ended = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Give each database the content that its migrations build."""
        run = RUNS[session.config]
        try:
            for name in self._names:
                run.databases.ensure(run.database(name))
        except ArenaError as error:
            self.error = error
        self.comparisons.update(run.databases.provision.comparisons())
        self.has_ended = True
        return True


def _page(ini: str, comparison: Comparison | None) -> str:
    if comparison is None:
        return f"{ini}: the migrations build what the models say\n"
    if comparison.failure:
        return f"{ini}: the migrations were not compared with the models: {comparison.failure}\n"
    lines = [
        f"{ini}: the migrations do not build what the models say",
        *(f"    {difference}" for difference in comparison.differences),
        'next: alembic revision --autogenerate -m "<what changes>"',
    ]
    return "\n".join(lines) + "\n"
