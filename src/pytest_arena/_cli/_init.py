"""`arena init`: proposes the options of a project and a first test. It imports none of its code."""

from __future__ import annotations

import json
import os
import re
import sys
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_arena._config._read import pytest_file
from pytest_arena._databases._builders import suggested_schema
from pytest_arena._origin import is_of_tests
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    Options = dict[str, str | list[str]]

_SKIPPED = re.compile(
    r"\.|(node_modules|site-packages|__pycache__|build|dist|venv|env|docs?|examples?|scripts"
    r"|migrations|alembic|versions)$"
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
_SQLMODEL = r"(?m)^class (\w+)\([^)]*table=True\)"
_URL_NAME = r"\w*(?:DATABASE|DB|POSTGRES|SQL|REDIS|BROKER)\w*_(?:URL|URI|DSN)"
_VARIABLE = re.compile(
    r"(?:(?:environ(?:\.get)?|getenv)\s*[(\[]|(?:alias|env)=)\s*[\"']"
    rf"({_URL_NAME})[\"']"
)
# Of a class of pydantic-settings, in capitals and without indentation.
_FIELD = re.compile(rf"(?m)^({_URL_NAME}) *:")
_PREFIX = re.compile(r"env_prefix[\"']? *[=:] *[\"'](\w*)")
# The options with which pytest-asyncio runs the first test of an app with an async engine.
_ASYNC = {"asyncio_mode": "auto", "asyncio_default_fixture_loop_scope": "function"}
_SECTION = re.compile(r"(?m)^(\[(?:tool[.:])?pytest(?:\.ini_options)?\].*\n)")


class Module(NamedTuple):
    """A module of the project, and the folder from which Python imports it."""

    name: str
    root: Path
    text: str


class Found(NamedTuple):
    """An app, or a model with its base, and the module that defines it."""

    module: Module
    name: str
    base: str = ""

    def __str__(self) -> str:
        return f"{self.module.name}:{self.base or self.name}"


def init(arguments: argparse.Namespace) -> int:
    """Print the options and a first test, or write them. Return the exit status."""
    folder = Path.cwd()
    modules = _read_modules(folder)
    apps = _find_apps(modules)
    models = _find_models(modules)
    if not apps and not models:
        raise ConfigError(
            f"{folder} has no app and no models",
            why="the options name an app for the requests, and models for the tables",
            cause="no module has app = FastAPI(…), Starlette(…), Litestar(…) or Flask(…)",
            fix="arena_app = package.module:attribute",
        )
    ini, settings = pytest_file()
    if ini is None:
        toml = folder / "pyproject.toml"
        ini = toml if toml.exists() else folder / "pytest.ini"
    for name in settings:
        if name.startswith("arena_"):
            sys.stdout.write(f"nothing to write: {ini.name} has {name}\n")
            return 0
    has_async = any("create_async_engine(" in module.text for module in modules)
    is_async = bool(apps and has_async and find_spec("pytest_asyncio"))
    proposed = _options(ini.parent, modules, apps, models)
    if is_async:
        proposed |= _ASYNC
    options, text = _with_options(
        ini, {name: proposed[name] for name in proposed if name not in settings}
    )
    values: Any = settings.get("testpaths") or "tests", settings.get("python_files") or "test_*.py"
    tests, pattern = (each.split()[0] if isinstance(each, str) else each[0] for each in values)
    tests = [*sorted(glob(tests, root_dir=ini.parent)), tests][0]  # noqa: PTH207 - as pytest does
    name = f"{tests}/{pattern.replace('*', 'arena')}"
    test_text = _first_test(apps, models, is_async=is_async)
    next_step = "next: arena init --write"
    if arguments.write:
        next_step = "written. next: pytest"
        ini.write_bytes(text.encode())
        test = ini.parent / name
        test.parent.mkdir(parents=True, exist_ok=True)
        if not test.exists():
            test.write_text(test_text, encoding="utf-8")
    for file, content in ((ini.name, options), (name, test_text)):
        sys.stdout.write(f"{file}:\n{indent(content, '    ')}\n")
    sys.stdout.write(f"{next_step}\n")
    return 0


def _read_modules(folder: Path) -> list[Module]:
    """Read the Python files, without tests, docs, examples and migrations."""
    texts = {}
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _SKIPPED.match(name))
        for name in sorted(names):
            file = Path(path, name)
            if file.suffix == ".py" and not is_of_tests(str(file.relative_to(folder))):
                texts[file] = file.read_text(encoding="utf-8", errors="replace")
    imported = set(re.findall(r"(?m)^\s*(?:from|import) (\w+)", "\n".join(texts.values())))
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


def _find_apps(modules: list[Module]) -> list[Found]:
    """Return the apps, then the functions that return one. The likeliest is first."""
    apps = [Found(each, name) for each in modules for name in _APP.findall(each.text)]
    apps.sort(key=lambda app: (app.name not in {"app", "application"}, str(app)))
    return apps + [Found(each, name) for each in modules for name in _FACTORY.findall(each.text)]


def _find_models(modules: list[Module]) -> list[Found]:
    """Return the classes that are tables."""
    found = {"db"} | {a or b for module in modules for a, b in _BASE.findall(module.text)}
    patterns = {"SQLModel": _SQLMODEL} | {base: _MODEL.format(base) for base in sorted(found)}
    return [
        Found(module, name, base)
        for base, pattern in patterns.items()
        for module in modules
        for name in re.findall(pattern, module.text)
    ]


def _options(
    folder: Path,
    modules: list[Module],
    apps: list[Found],
    models: list[Found],
) -> Options:
    """Return the options that the project needs."""
    root = (apps or models)[0].module.root
    proposed: Options = {"pythonpath": [root.relative_to(folder).as_posix()]}
    if apps:
        proposed["arena_app"] = str(apps[0])
    names = [*map(str, models)]
    # The module with most models imports the base and knows the tables.
    schema = suggested_schema(folder) or max(names, key=names.count, default="")
    if schema:
        proposed["arena_schema"] = schema
    found: list[str] = []
    for module in modules:
        found += _VARIABLE.findall(module.text)
        if "BaseSettings" in module.text:
            for text in re.split(r"(?m)^class ", module.text):
                prefix = "".join(_PREFIX.findall(text))
                # The prefix takes the place of the indentation of each field.
                fields = re.sub(r"(?m)^[ \t]+", prefix, text)
                found += _FIELD.findall(fields.upper())
    variables = dict.fromkeys(found)
    if variables.keys() - {"DATABASE_URL"}:
        proposed["arena_env"] = sorted(variables, key="DATABASE_URL".__ne__)
    return proposed


def _with_options(ini: Path, options: Options) -> tuple[str, str]:
    """Return the new lines of the configuration file, and its new text."""
    lines = ""
    for name, value in options.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        if ini.suffix == ".toml":
            shown = json.dumps(value)
        lines += f"{name} = {shown}\n"
    text = ini.read_bytes().decode().rstrip() if ini.exists() else ""
    section = "tool.pytest.ini_options" if ini.name == "pyproject.toml" else "pytest"
    if not _SECTION.search(f"{text}\n"):
        text = f"{text}\n\n[{section}]".lstrip()
    before, header, after = _SECTION.split(f"{text}\n", maxsplit=1)
    return header + lines, before + header + lines + after


def _first_test(apps: list[Found], models: list[Found], *, is_async: bool) -> str:
    """Return a test of a request and of a table."""
    imports = ""
    fixtures = []
    body = ""
    if apps:
        fixtures.append("client")
        body = '    response = await client.get("/")\n    assert response.status_code < 500\n'
    if models:
        module, model, _ = models[-1]  # an abstract class is mostly in an earlier module
        imports = f"from sqlalchemy import select\n\nfrom {module.name} import {model}\n\n\n"
        fixtures.append("db_session")
        body += f"    await db_session.scalar(select({model}))  # its table exists\n"
    test = f"async def test_the_app_and_its_tables({', '.join(fixtures)}):\n{body}"
    if not is_async:
        test = re.sub("async |await ", "", test).replace("client", "test_client")
    return f'"""The first test that uses pytest-arena."""\n\n{imports}{test}'
