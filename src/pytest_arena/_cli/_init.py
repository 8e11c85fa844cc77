"""`arena init`: proposes the options of a project and a first test."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from pytest_arena._cli._find import (
    find_apps,
    find_base,
    find_files,
    find_models,
    read_modules,
)
from pytest_arena._config._project import pytest_file
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._cli._find import Found, Module

Options = dict[str, str | list[str]]
_SECTIONS = {
    "pyproject.toml": ("tool.pytest", "tool.pytest.ini_options"),
    "setup.cfg": ("tool:pytest",),
}
_VARIABLE = re.compile(
    r"(?:environ(?:\.get)?|getenv)\s*[(\[]\s*[\"']"
    r"(\w*(?:DATABASE|DB|POSTGRES|SQL)\w*_(?:URL|URI|DSN))[\"']"
)
_INI_FOLDER = re.compile(r"(?m)^script_location\s*=\s*(\S+)")
_FIXTURE = re.compile(r"(?m)^(?:async )?def (db_session|test_client)\(")


@dataclass(frozen=True)
class Project:
    """The files of a project, and what is found in them."""

    ini: Path  # pytest's configuration file, which may not exist
    files: list[Path]
    modules: list[Module]
    apps: list[Found]
    models: list[Found]

    def relative(self, path: Path) -> str:
        """Return a path as the configuration file names it."""
        return Path(os.path.relpath(path, self.ini.parent)).as_posix()

    def search(self, pattern: re.Pattern[str]) -> list[str]:
        """Return what a pattern finds in the modules, each text once."""
        text = "\n".join(module.text for module in self.modules)
        return list(dict.fromkeys(pattern.findall(text)))


def init(*, writes: bool) -> int:
    """Print the options and a first test, or write them. Return the exit status.

    Raises:
        ConfigError: there is neither an app nor a model, or the options cannot be added.
    """
    folder = Path.cwd()
    files, other_projects = find_files(folder)
    modules = read_modules(folder, files)
    ini, settings = pytest_file()
    if ini is None:
        ini = folder / "pyproject.toml"
        if not ini.exists():
            ini = folder / "pytest.ini"
    project = Project(ini, files, modules, find_apps(modules), find_models(modules))
    if not project.apps and not project.models:
        raise _nothing_found(folder, other_projects)
    options, text = _with_options(ini, _options(project, settings))
    test = folder / "tests" / "test_arena.py"
    test_text = _first_test(project)
    lines = [f"{ini.name}:", indent(options, "    ")]
    lines += [f"{project.relative(test)}:", indent(test_text, "    ")]
    lines += [f"note: {note}" for note in _notes(project)]
    present = [name for name in settings if name.startswith("arena_")]
    if present:
        lines.append(f"nothing to write: {ini.name} has {present[0]}")
    elif writes:
        ini.write_bytes(text.encode())
        test.parent.mkdir(exist_ok=True)
        if not test.exists():
            test.write_text(test_text, encoding="utf-8")
        lines.append("written. next: pytest")
    else:
        lines.append("next: arena init --write")
    sys.stdout.write("\n".join([*lines, ""]))
    return 0


def _nothing_found(folder: Path, other_projects: list[Path]) -> ConfigError:
    steps = [
        f"cd {other.relative_to(folder)}, then: arena init" for other in other_projects
    ]
    return ConfigError(
        f"{folder} has no app and no models",
        why="the options name an app for the requests, and models for the tables",
        cause="no module has app = FastAPI(…), Starlette(…), Litestar(…) or Flask(…)",
        fix="\n".join(steps) or "arena_app = package.module:attribute",
    )


def _options(project: Project, settings: Mapping[str, object]) -> Options:
    """Return the options that the project needs."""
    options: Options = {}
    if "pythonpath" not in settings:
        first, *_ = project.apps or project.models
        options["pythonpath"] = [project.relative(first.module.root)]
    if project.apps:
        options["arena_app"] = project.apps[0].path
    migrations = [ini for ini, problem in _migrations(project) if not problem]
    if migrations:
        options["arena_schema"] = project.relative(migrations[0])
    elif project.models:
        options["arena_schema"] = find_base(project.models)
    variables = project.search(_VARIABLE)
    if set(variables) - {"DATABASE_URL"}:
        options["arena_env"] = variables
    return options


def _migrations(project: Project) -> Iterator[tuple[Path, str]]:
    """Yield each alembic.ini, and why it cannot create the tables of tests, "" if it can."""
    for file in project.files:
        if file.name == "alembic.ini":
            yield file, _problem_of(file, project)


def _problem_of(ini: Path, project: Project) -> str:
    text = ini.read_text(errors="replace")
    location = _INI_FOLDER.search(text)
    if location is None:
        return "it has no script_location"
    if ":" in location[1]:
        return ""  # in a package
    folder = ini.parent / location[1].replace("%(here)s", str(ini.parent))
    env = folder / "env.py"
    if not env.exists():
        return f"there is no {project.relative(env)}"
    if not {file.name for file in folder.rglob("*.py")} - {"env.py", "__init__.py"}:
        return f"{project.relative(folder)} has no migrations"
    return ""


def _notes(project: Project) -> Iterator[str]:
    """Yield what the user should know about the options."""
    apps = [app for app in project.apps if not app.is_factory]
    if len(apps) > 1:
        others = ", ".join(app.path for app in apps[1:])
        yield f"there are other apps: {others}"
    if not project.apps:
        yield "no app was found. For requests: arena_app = package.module:attribute"
    for ini, problem in _migrations(project):
        if problem:
            yield f"arena_schema does not name {project.relative(ini)}: {problem}"
    if not project.models:
        yield "no models were found. arena_schema may name a function that creates tables"
    for file in project.files:
        if file.name == "conftest.py":
            for name in _FIXTURE.findall(file.read_text(errors="replace")):
                yield f"{project.relative(file)} has a fixture {name}, which hides pytest-arena's"


def _with_options(ini: Path, options: Options) -> tuple[str, str]:
    """Return the new lines of the configuration file, and its new text.

    Raises:
        ConfigError: the new text would not be TOML.
    """
    lines = ""
    for name, value in options.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        if ini.suffix == ".toml":
            shown = json.dumps(value)
        lines += f"{name} = {shown}\n"
    text = ini.read_bytes().decode() if ini.exists() else ""
    if text:
        text = f"{text.rstrip()}\n"
    for section in _SECTIONS.get(ini.name, ("pytest",)):
        header = re.search(rf"(?m)^\[{re.escape(section)}\].*\n", text)
        if header:
            text = text[: header.end()] + lines + text[header.end() :]
            break
    else:
        text = f"{text}\n[{section}]\n{lines}".lstrip()
    if ini.suffix == ".toml":
        try:
            tomllib.loads(text)
        except ValueError:
            raise ConfigError(
                f"the options cannot be added to {ini.name}",
                why="only lines of a section can be added, and not of an inline table",
                cause=f"{ini} has no line [{section}]",
                fix=f"by hand: {lines}",
            ) from None
    return f"[{section}]\n{lines}", text


def _first_test(project: Project) -> str:
    """Return a test of a request and of a table."""
    head = ['"""The first test that uses pytest-arena."""', "", ""]
    fixtures = []
    body = []
    if project.apps:
        fixtures.append("test_client")
        body.append('    assert test_client.get("/").status_code < 500')
    if project.models:
        model = project.models[0]
        head[2:] = [
            "from sqlalchemy import select",
            "",
            f"from {model.module.name} import {model.name}",
            "",
            "",
        ]
        fixtures.append("db_session")
        body.append(f"    db_session.execute(select({model.name}))  # its table exists")
    signature = f"def test_the_app_and_its_tables({', '.join(fixtures)}):"
    return "\n".join([*head, signature, *body, ""])
