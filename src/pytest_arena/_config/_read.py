"""Reads the options of a run or of a command, and the arguments of markers."""

import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import iniconfig
import platformdirs

from pytest_arena._config._load import is_import_path, nearest
from pytest_arena._config._options import (
    ISOLATIONS,
    KEEPS,
    NETWORK,
    OPTIONS,
    QUESTIONS,
    Option,
)
from pytest_arena._config._supported import FILE_PRODUCTS, FILES, product_of
from pytest_arena.errors import ConfigError, redact_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options of a run.

    ``schema`` and ``seed`` map a database's name to its value, which is ``""`` for ``none``. The
    value of the name ``""`` has no name in the option.
    """

    app: str
    database: str
    schema: Mapping[str, str]
    seed: Mapping[str, str]
    isolation: str
    drivers: str
    login: str
    lifespan: str
    settle: float
    lock_timeout: float
    keep: str
    env: tuple[str, ...]
    allow: tuple[str, ...]
    network: tuple[str, ...]
    roles: tuple[str, ...]
    specs: tuple[str, ...]
    scenarios: str
    rebuild: bool
    verify: bool
    replay: tuple[str, ...]
    scenarios_out: tuple[str, ...]
    root: Path
    cache: Path
    file: Path | None  # pytest's configuration file

    def place(self, name: str) -> str:
        """Return the place of an option, for messages."""
        return _place(name, self.file)

    @property
    def server_url(self) -> str:
        """The server's URL in ``arena_database``, "" if it has another value."""
        return self.database if "://" in self.database else ""


def load_config(
    *,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    ini: Callable[[str], object],
    root: Path,
    file: Path | None = None,
    names: Iterable[str] = (),
) -> Config:
    """Read all options.

    Args:
        flags: the values of the command line, by the names of options.
        environ: the environment. Only ARENA_DATABASE and ARENA_CACHE are read.
        ini: returns the value of an option in pytest's configuration.
        root: pytest's root folder.
        file: pytest's configuration file.
        names: all names that the configuration sets.
    """
    _check_names(names, file)
    values: dict[str, Any] = {}
    for option in OPTIONS:
        text = _text_of(option, flags, environ, ini)
        values[option.name] = _parsed(option, text, _place(option.name, file))
    outputs: Any = flags.get("scenarios_out") or ()
    cache = environ.get("ARENA_CACHE") or platformdirs.user_cache_path("pytest-arena")
    config = Config(
        **values,
        rebuild=bool(flags.get("rebuild")),
        verify=bool(flags.get("verify")),
        replay=_questions(str(flags.get("replay") or "")),
        scenarios_out=tuple(outputs),
        root=root,
        # Absolute, because a test may change the working folder.
        cache=Path(cache).expanduser().absolute(),
        file=file,
    )
    _check_scenarios(config, flags)
    return config


def _text_of(
    option: Option,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    ini: Callable[[str], object],
) -> str:
    """Return the value of the command line, else of the environment, else of the configuration."""
    values = [flags.get(option.name), ini(option.ini)]
    if option.name == "database":
        values.insert(1, environ.get("ARENA_DATABASE"))
    for value in values:
        text = "\n".join(value) if isinstance(value, list) else str(value or "")
        if text.strip():
            return text.strip()
    return option.default


def _questions(text: str) -> tuple[str, ...]:
    """Return the words of ``--arena-replay``."""
    words = tuple(text.replace(",", " ").split())
    for word in words:
        if word not in QUESTIONS:
            raise ConfigError(
                f"--arena-replay has no question {word!r}",
                why=f"its questions are {', '.join(QUESTIONS)}",
                cause="the command line",
                fix=f"--arena-replay={nearest(word, QUESTIONS)}   or all: --arena-replay",
            )
    return words


def _place(name: str, file: Path | None) -> str:
    """Return the places that may set an option."""
    places = [f"arena_{name} in {file or 'the pytest configuration'}"]
    places += [option.flag for option in OPTIONS if option.name == name and option.flag]
    if name == "database":
        places.append("ARENA_DATABASE")
    return ", or ".join(places)


def _listed(text: str) -> tuple[str, ...]:
    parts = re.split(r"[,\n]|\s(?=/|\w+://)", text)  # a name of a file may have a blank
    return tuple(part.strip() for part in parts if part.strip())


def _variables(text: str) -> tuple[str, ...]:
    names = tuple(text.replace(",", " ").split())
    for name in names:
        if not name.isidentifier():
            raise ValueError("not the name of an environment variable")
    return names


def _network(text: str) -> tuple[str, ...]:
    words = tuple(text.replace(",", " ").split())
    if words[0] not in NETWORK:
        raise ValueError(f"the first word is none of: {', '.join(NETWORK)}")
    for word in words[1:]:
        if not re.fullmatch(r"[\w.:*-]+", word):
            raise ValueError(f"{word!r} is no host")
    return words


_NAME_AND_VALUE = re.compile(r"^([\w./-]+)\s*=\s*(.+)$")


def _by_database(text: str) -> dict[str, str]:
    """Return the values of lines in the form ``name = value`` or ``value``."""
    values: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _NAME_AND_VALUE.match(line)
        name, value = match.groups() if match else ("", line)
        if name in values:
            raise ValueError("several values for one database, without `name = value`")
        values[name] = "" if name and value == "none" else value
    return values


def _checked(files: tuple[str, ...], form: str, text: str) -> dict[str, str]:
    values = _by_database(text)
    for value in filter(None, values.values()):
        if not is_import_path(value) and not value.endswith(files):
            raise ValueError(f"not of the form {form}")
    return values


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError("not a number of seconds")
    return seconds


def _server(text: str) -> str:
    if "://" in text and product_of(text) in {"", *FILE_PRODUCTS}:
        raise ValueError(
            f"no URL of a server that pytest-arena can use ({FILES.shown} needs no server)"
        )
    return text


# A function raises ValueError if the text is wrong.
_FORMS: dict[str, Callable[[str], Any]] = {
    "text": str,
    "list": _listed,
    "network": _network,
    "schemas": partial(_checked, (".ini", ".sql"), "package.module:name, alembic.ini or a *.sql"),
    "seconds": _seconds,
    "seeds": partial(_checked, (), "package.module:function"),
    "server": _server,
    "variables": _variables,
}


def _parsed(option: Option, text: str, place: str) -> Any:
    """Return the value of an option."""
    example = option.example or option.default
    is_url = option.form == "server" and "://" in text
    if option.choices and text not in option.choices and not is_url:
        example = nearest(text.lower(), option.choices)
        problem = f"none of: {', '.join(option.choices)}"
    else:
        try:
            return _FORMS[option.form](text)
        except ValueError as error:
            problem = str(error)
    raise ConfigError(
        f"{option.ini} = {redact_url(text)!r}: {problem}",
        why="the run would not do what the option says",
        cause=place,
        fix=f"{option.ini} = {example}",
    )


def _check_names(names: Iterable[str], file: Path | None) -> None:
    known = [option.ini for option in OPTIONS]
    for name in names:
        if name.startswith("arena_") and name not in known:
            raise ConfigError(
                f"{name} is no option of pytest-arena",
                why="pytest-arena would ignore it silently",
                cause=f"a misspelt name in {file or 'the pytest configuration'}",
                fix=f"{nearest(name, known)} = …   (pytest --help lists all)",
            )


def _check_scenarios(config: Config, flags: Mapping[str, object]) -> None:
    """Check that no option needs scenarios if ``arena_specs`` names none."""
    if config.specs or config.scenarios == "off":
        return
    names = ("scenarios_out", "scenarios_stubs", "scenarios_accept", "scenarios_merge")
    if config.scenarios == "strict" or any(map(flags.get, names)):
        raise ConfigError(
            "an option needs scenarios, and arena_specs names no specification",
            why="the run would check no scenario, and would pass",
            cause=config.place("specs"),
            fix="arena_specs = docs/specs   (files, folders or patterns)",
        )


# The arguments of the marker, each with its values.
_MARKER: dict[str, tuple[object, ...]] = {
    "isolation": ISOLATIONS,
    "keep": KEEPS,
    "seed": (False, True),
    "schema": (False, True),
}


def marker_values(
    args: tuple[object, ...], kwargs: Mapping[str, object], *, place: str
) -> dict[str, object]:
    """Return the arguments of ``@pytest.mark.arena(…)``."""
    for name, value in [*(("", value) for value in args), *kwargs.items()]:
        if value not in _MARKER.get(name, ()):
            right = [f"{each}: {', '.join(map(str, _MARKER[each]))}" for each in _MARKER]
            raise ConfigError(
                f"@pytest.mark.arena({name}={value!r}) is wrong",
                why="the test would not run as it says",
                cause=place,
                fix=f"one of these arguments and values: {'; '.join(right)}",
            )
    return dict(kwargs)


# For commands that do not run pytest

# In pytest's order, each with its table or section. pytest reads the first file that has it.
_FILES = {
    "pytest.toml": "pytest",
    "pytest.ini": "pytest",
    "pyproject.toml": "tool.pytest",
    "tox.ini": "pytest",
    "setup.cfg": "tool:pytest",
}
_ONLY_FOR_PYTEST = {"pytest.toml", "pytest.ini"}


def read_project(*, database: str | None = None) -> Config:
    """Read all options of the project.

    Args:
        database: the value of ``--database``, which replaces ``arena_database``.
    """
    path, values = pytest_file()
    return load_config(
        flags={"database": database},
        environ=os.environ,
        ini=lambda name: values.get(name, ""),
        root=path.parent if path else Path.cwd(),
        file=path,
    )


def pytest_file() -> tuple[Path | None, Mapping[str, object]]:
    """Return pytest's configuration file and its values. It is searched from here upwards."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        for name, section in _FILES.items():
            path = folder / name
            if not path.is_file():
                continue
            try:
                values = _read(path, section)
            except (OSError, TypeError, ValueError, iniconfig.ParseError) as error:
                raise ConfigError(
                    f"{path} cannot be read: {error}",
                    why="it may have the options of pytest-arena",
                    cause=str(path),
                    fix="correct the file, then call the command again",
                ) from error
            if values is not None or name in _ONLY_FOR_PYTEST:
                return path, values or {}
    return None, {}


def values_of(path: Path) -> Mapping[str, object]:
    """Return the values in pytest's section of a file that pytest has read."""
    # `pytest -c` also reads files with other names.
    other = "tool.pytest" if path.suffix == ".toml" else "pytest"
    return _read(path, _FILES.get(path.name, other)) or {}


def _read(path: Path, section: str) -> Mapping[str, object] | None:
    """Return the values in a file, None for a file without a section for pytest."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        table = tomllib.loads(text)
        for name in section.split("."):
            if name not in table:
                return None
            table = dict(table[name])
        return {**table.get("ini_options", {}), **table}
    parser = iniconfig.IniConfig(path, text)
    return dict(parser[section].items()) if section in parser else None
