"""What is to be written: the options of a project, and its first test."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._cli._file_changes import FileChange
from pytest_arena._cli.init._edit import with_values
from pytest_arena._cli.init._look import is_private
from pytest_arena._config._load import is_import_path
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._cli.init._guarded import Facts
    from pytest_arena._cli.init._look import Project

_TEST_FILES = ("test_arena.py", "test_first_request.py")


@dataclass(slots=True)
class Proposal:
    """What is known of the project, and what was chosen of it."""

    project: Project
    ini: Path  # the configuration file, which may not be there yet
    settings: Mapping[str, object]  # pytest's, in that file
    app: str  # "" for a library, which has tables and no app
    facts: Facts = field(default_factory=dict)
    schema: str = ""
    redirects: bool = (
        False  # whether a driver's connections need `arena_drivers = redirect`
    )
    answers: list[list[Any]] = field(
        default_factory=list
    )  # path, status, asks the database, why
    unsure: list[str] = field(default_factory=list)

    def doubt(self, head: str, told: list[str]) -> None:
        """Keep what could not be learned, and why."""
        self.unsure.append(
            "\n  ".join([head, *(line for text in told for line in text.splitlines())])
        )

    def folders(self, name: str) -> list[Path]:
        """Return the folders of a setting, ``pythonpath`` or ``testpaths``."""
        given = self.settings.get(name) or ""
        words = given if isinstance(given, list) else str(given).split()
        return [(self.ini.parent / word).resolve() for word in words]

    @property
    def root(self) -> Path:
        """The folder from which the app, or a library's module of tables, is imported."""
        module = (self.app or self.schema).partition(":")[0]
        return self.project.roots.get(module, self.project.folder).resolve()

    @property
    def tests(self) -> Path:
        """The folder of the tests, which may not be there yet."""
        there = (folder for folder in self.folders("testpaths") if folder.is_dir())
        return next(there, self.project.folder / "tests")


def chosen_app(project: Project, wanted: str) -> str:
    """Return the app to test, or "" for a library, which has tables and no app.

    Raises:
        ConfigError: none was found, or several; it names them.
    """
    apps = [one.name for one in project.all("app", "factory")]
    if project.is_library and not wanted:
        return ""
    if is_import_path(wanted) or (len(apps) == 1 and not wanted):
        return wanted or apps[0]
    seen = project.all("app", "factory", "unfit")
    what = f"{len(apps)} apps: {', '.join(apps)}" if apps else "no app was found"
    raise ConfigError(
        f"--app {wanted} is not of the form module:attribute" if wanted else what,
        why="the tests import the app by its name, and ask it",
        cause="\n".join(f"{one.place}  {one.name}: {one.about}" for one in seen)
        or f"{project.files} files below {project.folder} make no FastAPI, Starlette, Litestar "
        "or Flask",
        fix="\n".join(f"arena init --app {name}" for name in apps)
        or "arena init --app module:attribute   (an app, or a function that makes one)",
    )


def schemas(plan: Proposal) -> Iterator[str]:
    """Yield what may build the tables, the likeliest first; "" last: the app does."""
    bases = _bases(plan)
    databases = [name for name, *_ in plan.facts["engines"]]
    if len(databases) > 1:
        pairs = dict(_pairs(databases, bases))
        if len(pairs) == len(databases):
            yield "\n".join(f"{name} = {pairs[name]}" for name in databases)
        forms = [f"{name} = module:Base" for name in databases]
        plan.doubt(
            "which database has which tables; arena_schema has a line for each:", forms
        )
    else:
        if plan.project.migrations and find_spec("alembic"):
            yield _relative(plan.project.migrations[0], plan)
        if len(bases) == 1:
            yield bases[0]
        elif bases:
            plan.doubt("which of these makes the tables:", bases)
        yield from _scripts(plan, is_alone=not bases and not plan.project.migrations)
    yield ""


def _bases(plan: Proposal) -> list[str]:
    """Return the bases that make tables: imported ones, else those in files. Public names win."""
    imported = [name for name, _ in plan.facts["bases"]]
    if imported:
        return imported
    project = plan.project
    tables = project.all("tables") or project.all("test_tables")
    names = {table.name for table in tables}
    public = {name for name in names if not is_private(name)}
    return sorted(public or names)


def _scripts(plan: Proposal, *, is_alone: bool) -> Iterator[str]:
    """Yield the SQL script that makes the tables: the only one, or the only one named schema."""
    names = [_relative(script, plan) for script in plan.project.scripts]
    named = [name for name in names if Path(name).stem.startswith("schema")]
    if len(names) == 1 or len(named) == 1:
        yield (named or names)[0]
    elif names and is_alone:
        plan.doubt("which of these makes the tables, as arena_schema:", names)


def _pairs(databases: list[str], bases: list[str]) -> Iterator[tuple[str, str]]:
    """Pair databases and bases by their names; what is left of both, if it is one of each."""
    left = list(bases)
    alone = []
    for name in databases:
        word = re.split(r"\W|_", name)[-1].lower()
        if len(fit := [base for base in left if word in base.lower()]) == 1:
            left.remove(fit[0])
            yield name, fit[0]
        else:
            alone.append(name)
    if len(alone) == len(left) == 1:
        yield alone[0], left[0]


def proposed(plan: Proposal) -> list[FileChange]:
    """Return the changes: what is in the files already is left out.

    Raises:
        ConfigError: the configuration has a form in which lines cannot be added.
    """
    values = {name: value for name, value in _values(plan) if name not in plan.settings}
    edits = [with_values(plan.ini, values)] if values else []
    if plan.answers and plan.project.first_test is None:
        free = [
            plan.tests / name
            for name in _TEST_FILES
            if not (plan.tests / name).exists()
        ]
        path, status, *_ = min(plan.answers, key=_rank)
        edits += [
            FileChange(file, None, _first_test(plan, path, status).encode())
            for file in free[:1]
        ]
    return edits


def _values(plan: Proposal) -> Iterator[tuple[str, str | list[str]]]:
    if not plan.facts.get("installed") and plan.root not in plan.folders("pythonpath"):
        yield "pythonpath", [_relative(plan.root, plan)]
        if "pythonpath" in plan.settings:
            plan.unsure.append(
                f"pythonpath is set, and lacks {_relative(plan.root, plan)}: add it"
            )
    if plan.app:
        yield "arena_app", plan.app
    if plan.schema:
        yield "arena_schema", plan.schema
    if plan.redirects:
        yield "arena_drivers", "redirect"
    variables = list(dict.fromkeys(one.name for one in plan.project.all("variable")))
    if set(variables) - {"DATABASE_URL"}:
        yield "arena_env", variables


def _relative(path: Path, plan: Proposal) -> str:
    """A path as the configuration file has it."""
    return Path(os.path.relpath(path.resolve(), plan.ini.parent.resolve())).as_posix()


def _rank(answer: list[Any]) -> int:
    """How little it says of the app that a route answers like this."""
    _, status, asks_database, _ = answer
    of_refusal = 3 if status in {401, 403} else 4
    kind = {2: 1, 3: 2, 4: of_refusal}.get(status // 100, 5)
    return 0 if kind == 1 and asks_database else kind


def _first_test(plan: Proposal, path: str, status: int) -> str:
    is_async = any(is_async for *_, is_async in plan.facts["engines"])
    mark = "anyio" if plan.project.has_fixture("anyio_backend") else ""
    if find_spec("pytest_asyncio"):
        mode = f"{plan.settings.get('asyncio_mode')} {plan.settings.get('addopts')}"
        mark = mark or ("auto" if "auto" in mode else "asyncio")
    is_async = is_async and bool(mark)
    head = (
        f"import pytest\n\n\n@pytest.mark.{mark}\n"
        if is_async and mark != "auto"
        else "\n"
    )
    fixture = client = "client" if is_async else "test_client"
    if plan.project.has_fixture(fixture):  # it would be theirs
        fixture, client = "arena", f"arena.{fixture}()"
    name = "_".join(re.findall(r"[a-z0-9]+", path.lower())) or "root"
    begin, wait = ("async def", "await ") if is_async else ("def", "")
    return (
        f'"""The first test with a database of its own."""\n\n{head}'
        f"{begin} test_get_{name}({fixture}):\n"
        f'    response = {wait}{client}.get("{path}")\n'
        f"    assert response.status_code == {status}\n"
    )
