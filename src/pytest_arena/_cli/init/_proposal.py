"""The proposed options of a project, and its first test."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._cli._file_changes import FileChange
from pytest_arena._cli.init._edit import with_values
from pytest_arena._cli.init._look import public_names
from pytest_arena._config._load import is_import_path
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._cli.init._edit import Values
    from pytest_arena._cli.init._guarded import Facts
    from pytest_arena._cli.init._look import Project


@dataclass(slots=True)
class Proposal:
    """The facts about a project, and the chosen values of its options."""

    project: Project
    ini: Path
    """the configuration file, which may not exist"""
    settings: Mapping[str, object]
    """pytest's settings in that file"""
    app: str
    """"" for a library"""
    facts: Facts = field(
        default_factory=lambda: {"bases": [], "engines": [], "routes": []}
    )
    schema: str = ""
    redirects: bool = False
    """whether a driver's connections need ``arena_drivers = redirect``"""
    answers: list[list[Any]] = field(default_factory=list)
    """the routes with a status, as ``Facts`` has them"""
    doubts: list[str] = field(default_factory=list)

    def doubt(self, title: str, lines: list[str]) -> None:
        """Record a problem."""
        text = "\n".join([title, *lines])
        self.doubts.append(text.replace("\n", "\n  "))

    def folders(self, name: str) -> list[Path]:
        """Return the folders of a setting, ``pythonpath`` or ``testpaths``."""
        value = self.settings.get(name) or ""
        names = value if isinstance(value, list) else str(value).split()
        return [(self.ini.parent / name).resolve() for name in names]

    @property
    def root(self) -> Path:
        """The folder from which the app, or a library's tables, are imported."""
        module = (self.app or self.schema).partition(":")[0]
        return self.project.roots.get(module, self.project.folder).resolve()

    @property
    def tests(self) -> Path:
        """The folder of the tests, which may not exist."""
        for folder in self.folders("testpaths"):
            if folder.is_dir():
                return folder
        return self.project.folder / "tests"

    def relative(self, path: Path) -> str:
        """Return a path as the configuration file names it."""
        relative = os.path.relpath(path.resolve(), self.ini.parent.resolve())
        return Path(relative).as_posix()


def chosen_app(project: Project, wanted: str) -> str:
    """Return the app to test, or "" for a library.

    Raises:
        ConfigError: there is no app, or there are several. The error lists them.
    """
    apps = [app.name for app in project.all("app", "factory")]
    if is_import_path(wanted):
        return wanted
    if not wanted and project.is_library:
        return ""
    if not wanted and len(apps) == 1:
        return apps[0]
    problem = f"{len(apps)} apps: {', '.join(apps)}"
    if wanted:
        problem = f"--app {wanted} is not of the form module:attribute"
    elif not apps:
        problem = "no app was found"
    candidates = project.all("app", "factory", "unfit")
    cause = "\n".join(f"{app.place}  {app.name}: {app.detail}" for app in candidates)
    if not cause:
        files = f"{project.files} files below {project.folder}"
        cause = f"{files} create no FastAPI, Starlette, Litestar or Flask"
    fix = "\n".join(f"arena init --app {name}" for name in apps)
    if not fix:
        fix = "arena init --app module:attribute   (an app, or a function that returns one)"
    raise ConfigError(
        problem,
        why="the tests import the app by its name",
        cause=cause,
        fix=fix,
    )


def schemas(plan: Proposal) -> Iterator[str]:
    """Yield possible values of ``arena_schema``, the likeliest first. The last is ""."""
    bases = [name for name, _ in plan.facts["bases"]]
    project = plan.project
    if not bases:
        bases = public_names(project.all("tables") or project.all("test_tables"))
    databases = [name for name, *_ in plan.facts["engines"]]
    if len(databases) > 1:
        pairs = _pairs(databases, bases)
        if len(pairs) == len(databases):
            yield "\n".join(f"{name} = {pairs[name]}" for name in databases)
        forms = [f"{name} = module:Base" for name in databases]
        plan.doubt("which tables each database has, as lines of arena_schema:", forms)
        yield ""
        return
    if project.migrations and find_spec("alembic"):
        yield plan.relative(project.migrations[0])
    if len(bases) == 1:
        yield bases[0]
    elif bases:
        plan.doubt("which of these has the tables:", bases)
    yield from _scripts(plan, is_alone=not bases and not project.migrations)
    yield ""


def _scripts(plan: Proposal, *, is_alone: bool) -> Iterator[str]:
    """Yield the SQL script that creates the tables: the only one, or the one named schema."""
    scripts = [plan.relative(script) for script in plan.project.scripts]
    named = [name for name in scripts if Path(name).stem.startswith("schema")]
    if len(scripts) == 1:
        yield scripts[0]
    elif len(named) == 1:
        yield named[0]
    elif scripts and is_alone:
        plan.doubt("which of these creates the tables, as arena_schema:", scripts)


def _pairs(databases: list[str], bases: list[str]) -> dict[str, str]:
    """Return the base of each database whose name it contains. The last of both is a pair, too."""
    pairs = {}
    for name in databases:
        word = re.split(r"\W|_", name)[-1].lower()
        fitting = [base for base in bases if word in base.lower()]
        if len(fitting) == 1:
            pairs[name] = fitting[0]
    other_names = set(databases) - pairs.keys()
    other_bases = set(bases) - set(pairs.values())
    if len(other_names) == len(other_bases) == 1:
        pairs[other_names.pop()] = other_bases.pop()
    return pairs


def proposed(plan: Proposal) -> list[FileChange]:
    """Return the changes of files. Options that are set already stay as they are.

    Raises:
        ConfigError: the configuration has a form in which lines cannot be added.
    """
    values = {
        name: value
        for name, value in _values(plan).items()
        if value and name not in plan.settings
    }
    edits = []
    if values:
        edits.append(with_values(plan.ini, values))
    if plan.answers and plan.project.first_test is None:
        path, status, *_ = min(plan.answers, key=_rank)
        for name in ("test_arena.py", "test_first_request.py"):
            file = plan.tests / name
            if not file.exists():
                test = _first_test(plan, path, status)
                edits.append(FileChange(file, None, test.encode()))
                break
    return edits


def _values(plan: Proposal) -> Values:
    """Return the options in the order in which they are written."""
    values: Values = {}
    is_installed = plan.facts.get("installed")
    if not is_installed and plan.root not in plan.folders("pythonpath"):
        root = plan.relative(plan.root)
        values["pythonpath"] = [root]
        if "pythonpath" in plan.settings:
            plan.doubts.append(f"pythonpath does not contain {root}: add it")
    values["arena_app"] = plan.app
    values["arena_schema"] = plan.schema
    values["arena_drivers"] = "redirect" if plan.redirects else ""
    variables = [variable.name for variable in plan.project.all("variable")]
    if set(variables) - {"DATABASE_URL"}:
        values["arena_env"] = list(dict.fromkeys(variables))
    return values


def _rank(answer: list[Any]) -> int:
    """Return a number that is lowest for the answer that proves most about the app."""
    _, status, uses_database, _ = answer
    if status in {401, 403}:
        return 3
    ranks = {2: 1, 3: 2, 4: 4}
    rank = ranks.get(status // 100, 5)
    return 0 if rank == 1 and uses_database else rank


def _first_test(plan: Proposal, path: str, status: int) -> str:
    project = plan.project
    mark = ""
    if project.has_fixture("anyio_backend"):
        mark = "anyio"
    elif find_spec("pytest_asyncio"):
        mode = f"{plan.settings.get('asyncio_mode')} {plan.settings.get('addopts')}"
        mark = "auto" if "auto" in mode else "asyncio"
    is_async = mark and any(is_async for *_, is_async in plan.facts["engines"])
    client = "client" if is_async else "test_client"
    fixture = client
    if project.has_fixture(client):  # the suite's fixture replaces the plugin's
        fixture = "arena"
        client = f"arena.{client}()"
    words = re.findall(r"[a-z0-9]+", path.lower())
    signature = f"def test_get_{'_'.join(words) or 'root'}({fixture}):"
    if is_async:
        signature = f"async {signature}"
        client = f"await {client}"
    head = ""
    if is_async and mark != "auto":
        head = f"import pytest\n\n\n@pytest.mark.{mark}"
    return f'''"""The first test that uses pytest-arena."""

{head}
{signature}
    response = {client}.get("{path}")
    assert response.status_code == {status}
'''
