"""The proposed options of a project, and its first test."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli._file_changes import FileChange
from pytest_arena._cli.init._edit import with_values
from pytest_arena._cli.init._look import public_names
from pytest_arena._config._load import is_import_path
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._cli.init._edit import Values
    from pytest_arena._cli.init._guarded import Facts, RouteAnswer
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
    """the value of ``arena_app``, "" for a library"""
    facts: Facts
    """the facts of the last run that imported the app"""
    schema: str = ""
    """the value of ``arena_schema``"""
    redirects: bool = False
    """whether a driver's connections need ``arena_drivers = redirect``"""
    answers: list[RouteAnswer] = field(default_factory=list)
    """the answers with a status"""
    doubts: list[str] = field(default_factory=list)
    """problems that the user has to decide"""

    def doubt(self, title: str, lines: list[str]) -> None:
        """Record a problem: a title, and lines below it."""
        text = "\n".join([title, *lines])
        self.doubts.append(text.replace("\n", "\n  "))

    def choose_schema(self, schema: str) -> None:
        """Propose this value of ``arena_schema``."""
        self.schema = schema

    def note_facts(self, facts: Facts) -> None:
        """Note what a guarded run reported."""
        self.facts = facts

    def redirect_drivers(self) -> None:
        """Propose ``arena_drivers = redirect``."""
        self.redirects = True

    def folders(self, name: str) -> list[Path]:
        """Return the folders of a setting, ``pythonpath`` or ``testpaths``."""
        value = self.settings.get(name) or ""
        names = value if isinstance(value, list) else str(value).split()
        parent = self.ini.parent
        return [(parent / name).resolve() for name in names]

    @property
    def root(self) -> Path:
        """The folder from which the app, or a library's tables, are imported."""
        name = self.app or self.schema
        module = name.partition(":")[0]
        root = self.project.roots.get(module, self.project.folder)
        return root.resolve()

    @property
    def tests(self) -> Path:
        """The folder of the tests, which may not exist."""
        for folder in self.folders("testpaths"):
            if folder.is_dir():
                return folder
        return self.project.folder / "tests"

    def relative(self, path: Path) -> str:
        """Return a path as the configuration file names it."""
        folder = self.ini.parent.resolve()
        relative = os.path.relpath(path.resolve(), folder)
        return Path(relative).as_posix()


def chosen_app(project: Project, wanted: str) -> str:
    """Return the app to test, or "" for a library.

    Raises:
        ConfigError: there is no app, or there are several apps. The error lists them.
    """
    apps = [app.name for app in project.all("app", "factory")]
    candidates = [wanted] if wanted else apps
    if not wanted and project.is_library:
        return ""
    for name in candidates:
        is_only_one = len(candidates) == 1 and apps.count(name) <= 1
        if is_only_one and is_import_path(name):
            return name
    causes = [
        f"{app.place}  {app.name}: {app.detail}"
        for app in project.all("app", "factory", "unfit")
    ]
    if not causes:
        files = f"{project.files} files below {project.folder}"
        causes = [f"{files} create no FastAPI, Starlette, Litestar or Flask"]
    steps = [f"arena init --app {name}" for name in apps if is_import_path(name)]
    if len(set(apps)) < len(apps):
        steps = ["cd to the folder of one of these apps, then: arena init"]
    if not steps:
        form = "arena init --app module:attribute"
        steps = [f"{form}   (an app, or a function that returns one)"]
    raise ConfigError(
        _problem_of_choice(apps, wanted),
        why="the tests import the app by its name",
        cause="\n".join(causes),
        fix="\n".join(steps),
    )


def _problem_of_choice(apps: list[str], wanted: str) -> str:
    """Return why no app can be chosen."""
    if wanted and not is_import_path(wanted):
        return f"--app {wanted} is not of the form module:attribute"
    if len(apps) == 1:
        return f"{apps[0]} cannot be imported by this name"
    if apps:
        return f"{len(apps)} apps: {', '.join(apps)}"
    return "no app was found"


def schemas(plan: Proposal) -> Iterator[str]:
    """Yield possible values of ``arena_schema``, the likeliest first. The last is ""."""
    project = plan.project
    bases = [name for name, _ in plan.facts["bases"]]
    if not bases:
        tables = project.all("tables") or project.all("test_tables")
        bases = public_names(tables)
    databases = [name for name, *_ in plan.facts["engines"]]
    if len(databases) > 1:
        pairs = _pairs(databases, bases)
        if len(pairs) == len(databases):
            lines = [f"{name} = {pairs[name]}" for name in databases]
            yield "\n".join(lines)
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
    # An SQL script is likely if it is the only script, or if it is named schema.
    scripts = [plan.relative(script) for script in project.scripts]
    named = [name for name in scripts if Path(name).stem.startswith("schema")]
    if len(scripts) == 1:
        yield scripts[0]
    elif len(named) == 1:
        yield named[0]
    elif scripts and not bases and not project.migrations:
        plan.doubt("which of these creates the tables, as arena_schema:", scripts)
    yield ""


def _pairs(databases: list[str], bases: list[str]) -> dict[str, str]:
    """Return the base of each database. Only its name contains the last word of the database.

    If one database and one base remain, they are a pair, too.
    """
    pairs = {}
    for name in databases:
        words = re.split(r"\W|_", name.lower())
        fitting = [base for base in bases if words[-1] in base.lower()]
        if len(fitting) == 1:
            pairs[name] = fitting[0]
    other_names = set(databases) - pairs.keys()
    other_bases = set(bases) - set(pairs.values())
    if len(other_names) == len(other_bases) == 1:
        pairs[other_names.pop()] = other_bases.pop()
    return pairs


def proposed(plan: Proposal) -> list[FileChange]:
    """Return the changes of files. Options that are already set keep their values.

    Raises:
        ConfigError: the configuration has a form in which lines cannot be added.
    """
    values: Values = {
        name: value
        for name, value in _values(plan).items()
        if value and name not in plan.settings
    }
    edits = []
    if values:
        edits.append(with_values(plan.ini, values))
    if plan.answers and plan.project.first_test is None:
        answer = min(plan.answers, key=_rank)
        for name in ("test_arena.py", "test_first_request.py"):
            file = plan.tests / name
            if not file.exists():
                test = _first_test(plan, answer)
                edits.append(FileChange(file, None, test.encode()))
                break
    return edits


def _async_values(plan: Proposal) -> Values:
    """Return the options with which async tests without a marker run.

    Tests that use anyio keep it, because two plugins must not run the same tests.
    """
    project = plan.project
    tests = project.all("async_test")
    marks = {mark.name for mark in project.all("async_mark")}
    words = str(plan.settings.get("addopts"))
    is_set = plan.settings.keys() & {"asyncio_mode", "anyio_mode"}
    if not tests or is_set or "io-mode" in words or "add_marker" in marks:
        return {}
    uses_anyio = project.has_fixture("anyio_backend") or "mark.anyio" in marks
    if uses_anyio:
        return {"anyio_mode": "auto"}
    if find_spec("pytest_asyncio"):
        scope = "asyncio_default_fixture_loop_scope"
        return {"asyncio_mode": "auto", scope: "function"}
    plan.doubt(
        "no plugin runs your async tests:",
        [tests[0].place, "pip install pytest-asyncio, then: arena init"],
    )
    return {}


def _values(plan: Proposal) -> Values:
    """Return the options in the order in which they are written."""
    values = _async_values(plan)
    is_importable = plan.root in plan.folders("pythonpath")
    if not is_importable and not plan.facts.get("installed"):
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


def _rank(answer: RouteAnswer) -> int:
    """Return a sort key. The answer that proves most about the app has the lowest key."""
    status = answer.status
    if status in {401, 403}:
        return 3
    ranks = {2: 1, 3: 2, 4: 4}
    rank = ranks.get(status // 100, 5)
    if rank == 1 and answer.uses_database:
        return 0
    return rank


def _first_test(plan: Proposal, answer: RouteAnswer) -> str:
    """Return the text of a test that sends the request again and expects the same status."""
    project = plan.project
    settings = plan.settings
    mark = ""
    if project.has_fixture("anyio_backend"):
        mark = "anyio"
    elif find_spec("pytest_asyncio"):
        mode = f"{settings.get('asyncio_mode')} {settings.get('addopts')}"
        is_auto = "auto" in mode or "asyncio_mode" in _async_values(plan)
        mark = "auto" if is_auto else "asyncio"
    async_engines = [name for name, *_, is_async in plan.facts["engines"] if is_async]
    is_async = bool(mark and async_engines)
    client = "client" if is_async else "test_client"
    fixture = client
    if project.has_fixture(client):  # the suite's fixture replaces the plugin's
        fixture = "arena"
        client = f"arena.{client}()"
    words = re.findall(r"[a-z0-9]+", answer.path.lower())
    name = "_".join(words) or "root"
    signature = f"def test_get_{name}({fixture}):"
    if is_async:
        signature = f"async {signature}"
        client = f"await {client}"
    head = ""
    if is_async and mark != "auto":
        head = f"import pytest\n\n\n@pytest.mark.{mark}"
    return f'''"""The first test that uses pytest-arena."""

{head}
{signature}
    response = {client}.get("{answer.path}")
    assert response.status_code == {answer.status}
'''
