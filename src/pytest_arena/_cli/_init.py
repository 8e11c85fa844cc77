"""`arena init`: proposes the options of a project and a first test. It imports none of its code."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from pytest_arena._config._project import pytest_file, read_project
from pytest_arena._config._supported import package_of, product_of
from pytest_arena._product._server_search import Unavailable
from pytest_arena.errors import ArenaError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._product._server_search import ServerSearch

Options = dict[str, str | list[str]]
_SKIPPED = re.compile(
    r"\.|(node_modules|site-packages|__pycache__|build|dist|venv|env|tests?|docs?|examples?|scripts"
    r"|migrations|alembic|versions)$|test_|conftest\.py$"
)
_FRAMEWORK = r"(?:\w+\.)?(?:FastAPI|Starlette|Litestar|Flask)\("
_APP = re.compile(rf"(?m)^(\w+)(?:: \w+)? = (?:{_FRAMEWORK}|create_app\()")
# A function without required arguments, in whose body an app is created.
_FACTORY = re.compile(
    rf"(?m)^def (\w+)\((?:\w+[^,)]*=[^,)]*,?\s*)*\)[^\n]*:\n(?:[ \t].*\n|\n)*?[ \t].*{_FRAMEWORK}"
)
_BASE = re.compile(
    r"(?m)^class (\w+)\([^)]*DeclarativeBase[^)]*\)|^(\w+) = (?:declarative_base|SQLAlchemy)\("
)
_MODEL = r"(?m)^class (\w+)\((?:[^)]*\b)?{}\b[^)]*\)"
_SQLMODEL = re.compile(r"(?m)^class (\w+)\([^)]*table=True\)")
_VARIABLE = re.compile(
    r"(?:environ(?:\.get)?|getenv)\s*[(\[]\s*[\"']"
    r"(\w*(?:DATABASE|DB|POSTGRES|SQL)\w*_(?:URL|URI|DSN))[\"']"
)
_SERVER = re.compile(r"\b(postgresql|mysql|mariadb)(?:\+\w+)?://")
_FIXTURE = re.compile(r"(?m)^(?:async )?def (db_session|test_client)\(")
_SECTIONS = {
    "pyproject.toml": ("tool.pytest", "tool.pytest.ini_options"),
    "setup.cfg": ("tool:pytest",),
}


@dataclass(frozen=True)
class Module:
    """A module of the project, and the folder from which Python imports it."""

    name: str
    root: Path
    text: str


@dataclass(frozen=True)
class Project:
    """The files of a project, and what is found in them."""

    folder: Path
    modules: list[Module]
    apps: list[tuple[Module, str]]
    models: list[tuple[Module, str, str]]  # each with the name of its base

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
    modules = _read_modules(folder)
    project = Project(folder, modules, _find_apps(modules), _find_models(modules))
    if not project.apps and not project.models:
        raise ConfigError(
            f"{folder} has no app and no models",
            why="the options name an app for the requests, and models for the tables",
            cause="no module has app = FastAPI(…), Starlette(…), Litestar(…) or Flask(…)",
            fix="arena_app = package.module:attribute",
        )
    ini, settings = pytest_file()
    if ini is None:
        ini = folder / "pyproject.toml"
        if not ini.exists():
            ini = folder / "pytest.ini"
    options, text = _with_options(ini, _options(project, settings))
    test = folder / "tests" / "test_arena.py"
    test_text = _first_test(project)
    lines = [f"{ini.name}:", indent(options, "    ")]
    lines += ["tests/test_arena.py:", indent(test_text, "    ")]
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


def _read_modules(folder: Path) -> list[Module]:
    """Read the Python files, without tests, docs, examples and migrations."""
    texts = {}
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _SKIPPED.match(name))
        for name in sorted(names):
            if name.endswith(".py") and not _SKIPPED.match(name):
                file = Path(path, name)
                texts[file] = file.read_text(encoding="utf-8", errors="replace")
    all_text = "\n".join(texts.values())
    imported = set(re.findall(r"(?m)^\s*(?:from|import) (\w+)", all_text))
    modules = []
    for file, text in texts.items():
        root = folder
        for parent in file.relative_to(folder).parents[-2::-1]:
            # A folder without __init__.py is a package if a module imports it.
            if (folder / parent / "__init__.py").exists() or parent.name in imported:
                break
            root = folder / parent
        name = ".".join(file.relative_to(root).with_suffix("").parts)
        modules.append(Module(name.removesuffix(".__init__"), root, text))
    return modules


def _find_apps(modules: list[Module]) -> list[tuple[Module, str]]:
    """Return the apps, then the functions that return one. The likeliest is first."""
    apps = [(module, name) for module in modules for name in _APP.findall(module.text)]
    apps.sort(key=lambda app: (app[1] not in {"app", "application"}, app[0].name))
    for module in modules:
        apps += [(module, name) for name in _FACTORY.findall(module.text)]
    return apps


def _find_models(modules: list[Module]) -> list[tuple[Module, str, str]]:
    """Return the classes that are tables, each with its module and its base."""
    models = []
    bases = {"db"}
    for module in modules:
        bases.update(filter(None, (a or b for a, b in _BASE.findall(module.text))))
        for name in _SQLMODEL.findall(module.text):
            models.append((module, name, "SQLModel"))
    for base in sorted(bases):
        pattern = re.compile(_MODEL.format(base))
        for module in modules:
            models += [(module, name, base) for name in pattern.findall(module.text)]
    return models


def _options(project: Project, settings: Mapping[str, object]) -> Options:
    """Return the options that the project needs."""
    options: Options = {}
    if "pythonpath" not in settings:
        module = (project.apps or project.models)[0][0]
        root = module.root.relative_to(project.folder)
        options["pythonpath"] = [root.as_posix()]
    if project.apps:
        module, name = project.apps[0]
        options["arena_app"] = f"{module.name}:{name}"
    if (project.folder / "alembic.ini").exists() and [
        *project.folder.glob("*/versions/*.py")
    ]:
        options["arena_schema"] = "alembic.ini"
    elif project.models:
        # The module with most models imports the base and knows the tables.
        places = Counter((module.name, base) for module, _, base in project.models)
        [((module_name, base), _)] = places.most_common(1)
        options["arena_schema"] = f"{module_name}:{base}"
    variables = project.search(_VARIABLE)
    if set(variables) - {"DATABASE_URL"}:
        options["arena_env"] = variables
    return options


def _notes(project: Project) -> Iterator[str]:
    """Yield what the user should know about the options."""
    if len(project.apps) > 1:
        others = ", ".join(f"{module.name}:{name}" for module, name in project.apps[1:])
        yield f"there are other apps: {others}"
    if not project.apps:
        yield "no app was found. For requests: arena_app = package.module:attribute"
    if not project.models:
        yield "no models were found. arena_schema may name a function that creates tables"
    yield from map(_server_note, project.search(_SERVER))
    for file in project.folder.glob("tests/**/conftest.py"):
        for name in _FIXTURE.findall(file.read_text(errors="replace")):
            shown = file.relative_to(project.folder)
            yield f"{shown} has a fixture {name}, which hides pytest-arena's"


def _server_note(product: str) -> str:
    """Return the server that the test databases of a product will be on."""
    package = package_of(product_of(product))
    search: ServerSearch = importlib.import_module(f"{package}._servers").SEARCH
    config = read_project()
    try:
        server = (search.find if config.server_url else search.local_service)(config)
    except (ArenaError, Unavailable) as error:
        return f"the tests get a private server of {product}, as no other can be used: {error}"
    return (
        f"the test databases, named arena_…, will be on {server.shown}. arena_database = URL names "
        "another server"
    )


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
        module, model, _ = project.models[0]
        imports = f"from {module.name} import {model}"
        head[2:] = ["from sqlalchemy import select", "", imports, "", ""]
        fixtures.append("db_session")
        body.append(f"    db_session.execute(select({model}))  # its table exists")
    signature = f"def test_the_app_and_its_tables({', '.join(fixtures)}):"
    return "\n".join([*head, signature, *body, ""])
