"""Reads the options of a run, and the arguments of markers."""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs

from pytest_arena._config._load import is_import_path, nearest
from pytest_arena._config._options import (
    DATABASES,
    ISOLATIONS,
    KEEPS,
    OPTIONS,
    Option,
)
from pytest_arena._config._supported import (
    FILE_PRODUCTS,
    FILES,
    OWN,
    product_of,
)
from pytest_arena._values import CodeLine
from pytest_arena.errors import ConfigError, redact, redact_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options of a run.

    ``schema`` and ``seed`` map a database's name to its value; the name ``""`` is the app's first
    database.
    """

    app: str
    database: str
    schema: Mapping[str, str]
    seed: Mapping[str, str]
    migrations: str
    isolation: str
    drivers: str
    login: str
    lifespan: str
    lost_writes: str
    late_commits: str
    settle: float
    late: str
    lock_timeout: float
    turn_timeout: float
    keep: str
    mask: tuple[str, ...]
    env: tuple[str, ...]
    allow: tuple[str, ...]
    roles: tuple[str, ...]
    rebuild: bool
    verify: bool
    root: Path
    cache: Path
    files: Path | None  # the folder for SQLite files
    places: Mapping[
        str, str
    ]  # for each option: a line of a file, or what else has set it
    specs: tuple[str, ...]
    scenarios: str
    scenario_evidence: tuple[str, ...]
    scenario_lock: str
    scenario_baseline: str
    scenario_waive: tuple[str, ...]
    scenario: tuple[str, ...]
    scenarios_out: str
    scenarios_sabotage: bool
    is_toml: bool  # whether the configuration file is TOML

    def schema_lines(self, schemas: Mapping[str, str]) -> str:
        """Return ``arena_schema`` with these values, to be pasted into the configuration file."""
        if [*schemas] == [""]:
            schema = schemas[""]
            if self.is_toml:
                schema = f'"{schema}"'
            return f"arena_schema = {schema}"
        lines = [f"    {name} = {schema}" for name, schema in schemas.items()]
        text = "\n".join(lines)
        if self.is_toml:
            return f'arena_schema = """\n{text}\n"""'
        return f"arena_schema =\n{text}"

    def schema_lines_with(self, database: str, schema: str, *, first: str) -> str:
        """Return ``arena_schema`` with its present values, and one for another database.

        A value without a name is for the app's first database, and gets its name.
        """
        schemas = {name or first: value for name, value in self.schema.items()}
        schemas[database] = schema
        return self.schema_lines(schemas)

    @property
    def server_url(self) -> str:
        """The server's URL in ``arena_database``, "" if it has another value."""
        return self.database if "://" in self.database else ""

    @property
    def has_scenarios(self) -> bool:
        """Whether specifications are read."""
        return bool(self.specs) and self.scenarios != "off"


@dataclass(frozen=True, slots=True)
class OptionValue:
    """A value of an option, and the place where it is set.

    ``form`` is the assignment of a value there, such as ``arena_app = {}``.
    """

    text: str
    form: str
    place: str

    def assignment(self, text: str) -> str:
        """Return the assignment of another value, as the user would write it in this place."""
        return self.form.format(redact_url(text))


def load_config(
    *,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    ini: Callable[[str], object],
    root: Path,
    inipath: Path | None = None,
    names: Iterable[str] = (),
) -> Config:
    """Read all options: first the command line, then the environment, then the file.

    ``names`` are the options that the file has.

    Raises:
        ConfigError: a value is wrong, or an option does not exist. The error names the place.
    """
    _check_names(names, inipath)
    options = {}
    parsed = {}
    for option in OPTIONS:
        value = _read(option, flags, environ, ini, inipath)
        _check_option(option, value)
        options[option.name] = value
        parsed[option.name] = _FORMS[option.form](value.text)
    _check_database(options["database"])
    config = Config(
        **parsed,
        rebuild=_is_on("rebuild", flags, environ),
        verify=_is_on("verify", flags, environ),
        root=root,
        cache=_cache(environ, root),
        files=files_folder(environ),
        places={name: redact(value.place) for name, value in options.items()},
        scenario=_flag_values(flags, "scenario"),
        scenarios_out=",".join(_flag_values(flags, "scenarios_out")),
        scenarios_sabotage=_runs_sabotage(flags, environ, options["scenarios"].text),
        is_toml=inipath is not None and inipath.suffix == ".toml",
    )
    _check_values(config, options)
    _check_scenarios(config)
    return config


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r"[,\n]", text) if part.strip())


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


_NAME_AND_VALUE = re.compile(r"^([\w./-]+)\s*=\s*(.+)$")


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return names and values of lines in the form ``name = value`` or ``value``."""
    pairs = []
    for line in _lines(text):
        match = _NAME_AND_VALUE.match(line)
        pairs.append((match[1], match[2]) if match else ("", line))
    return pairs


_FORMS: dict[str, Callable[[str], Any]] = {
    "text": str,
    "seconds": _seconds,
    "databases": lambda text: dict(_pairs(text)),
    "list": _listed,
    "words": _words,
    "lines": _lines,
}


def _flag_values(flags: Mapping[str, object], name: str) -> tuple[str, ...]:
    values = flags.get(name) or ()
    if isinstance(values, list | tuple):
        return tuple(map(str, values))
    return (str(values),)


def _check_scenarios(config: Config) -> None:
    """Raise a ConfigError if an option needs scenarios, and ``arena_specs`` names none."""
    if config.specs or config.scenarios == "off":
        return
    values = {
        "--scenario": config.scenario,
        "--scenarios-out": config.scenarios_out,
        "arena_scenarios = strict": config.scenarios == "strict",
        "--scenarios-sabotage": config.scenarios_sabotage,
    }
    used = [name for name, value in values.items() if value]
    if not used:
        return
    name = used[0]
    place = "on the command line"
    if name.startswith("arena_"):
        place = f"in {config.places['scenarios']}"
    raise ConfigError(
        f"{name}, and arena_specs names no specification",
        why="the run would check no scenario, and would pass",
        cause=f"arena_specs is not set; {name} {place}",
        fix="arena_specs = docs/specs   (files, folders or patterns; or --arena-specs=…)",
    )


def _is_on(name: str, flags: Mapping[str, object], environ: Mapping[str, str]) -> bool:
    variable = environ.get(f"ARENA_{name.upper()}", "")
    return bool(flags.get(name)) or _is_yes(variable)


def _is_yes(text: str) -> bool:
    return text.strip().lower() not in {"", "0", "no", "off", "false"}


def _runs_sabotage(
    flags: Mapping[str, object], environ: Mapping[str, str], scenarios: str
) -> bool:
    """Return whether sabotage runs. The default is on for a strict run in CI."""
    flag = flags.get("scenarios_sabotage")
    if flag is not None:
        return bool(flag)
    return scenarios == "strict" and _is_yes(environ.get("CI", ""))


def _cache(environ: Mapping[str, str], root: Path) -> Path:
    # Absolute, because a test may change the working folder.
    chosen = environ.get("ARENA_CACHE") or platformdirs.user_cache_path("pytest-arena")
    cache = Path(chosen).expanduser().absolute()
    if root.resolve().is_relative_to(cache.resolve()):
        raise ConfigError(
            f"ARENA_CACHE={chosen}: the project lies in this folder",
            why="the cache has only files of pytest-arena, and you may delete it",
            cause=f"the environment names {cache}, and the project is {root}",
            fix=f"ARENA_CACHE={root / '.arena_cache'} pytest …",
        )
    return cache


def files_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder that ``ARENA_FILES`` names, or None."""
    chosen = environ.get("ARENA_FILES")
    return Path(chosen).expanduser().resolve() if chosen else None


def _read(
    option: Option,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    ini: Callable[[str], object],
    inipath: Path | None,
) -> OptionValue:
    # An empty value on the command line switches an option off for one run. An empty variable does
    # not, because CI systems set variables without a value.
    flag = flags.get(option.name)
    if flag is not None:
        return OptionValue(str(flag).strip(), f"{option.flag}={{}}", "the command line")
    if variable := environ.get(option.variable, "").strip():
        return OptionValue(variable, f"{option.variable}={{}}", "the environment")
    if value := _from_file(option, ini, inipath):
        place = _line_of(option.ini, inipath, value)
        return OptionValue(value, f"{option.ini} = {{}}", place)
    return OptionValue(
        option.default, f"{option.ini} = {{}}", "the defaults of pytest-arena"
    )


def _from_file(
    option: Option, ini: Callable[[str], object], inipath: Path | None
) -> str:
    try:
        value = ini(option.ini)
    except Exception as error:  # UsageError of pytest, or TypeError before pytest 9.1
        form = f'"{option.example}"'
        if option.many:
            form = f"[{form}]"
        raise ConfigError(
            f"{option.ini} has a value of another type: {error}",
            why="[tool.pytest] takes each value in the type of its option, and converts nothing",
            cause=_line_of(option.ini, inipath),
            fix=f"{option.ini} = {form}",
        ) from error
    if isinstance(value, list):
        return "\n".join(value)
    return str(value or "").strip()


# How a value begins in TOML that may have several lines.
_LISTS = ("[", '"""', "'''")


def _line_of(name: str, inipath: Path | None, value: str = "") -> str:
    """Return the line of the configuration file that sets an option.

    A line with another value is not returned: ``-o`` overrides it.
    """
    if inipath is None:
        return "the pytest configuration"
    pattern = re.compile(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=:]")
    lines = inipath.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not pattern.match(line):
            continue
        first_line = line.partition("=")[2].strip()
        continues = not first_line or first_line.startswith(_LISTS)
        if continues or value in line:
            return str(CodeLine(str(inipath), number))
    return f"-o {name}=…, or {inipath}"


def _check_option(option: Option, value: OptionValue) -> None:
    if option.form == "seconds":
        _check_seconds(value)
    elif option.form == "words":
        for word in _words(value.text):
            _check_choice(replace(value, text=word), option.choices)
    else:
        _check_choice(value, option.choices)


def _check_choice(value: OptionValue, choices: tuple[str, ...]) -> None:
    if not choices or value.text in choices:
        return
    assignment = value.assignment(value.text)
    raise ConfigError(
        f"{assignment} is none of: {', '.join(choices)}",
        why="the run would not do what the option says",
        cause=f"a misspelt value in {value.place}",
        fix=value.assignment(nearest(value.text.lower(), choices)),
    )


def _check_seconds(value: OptionValue) -> None:
    if not 0 <= _seconds(value.text) < math.inf:
        raise ConfigError(
            f"{value.assignment(value.text)} is no number of seconds",
            why="the run would not wait, or would wait for ever",
            cause=value.place,
            fix=value.assignment("1"),
        )


def _check_database(value: OptionValue) -> None:
    if "://" not in value.text:
        _check_choice(value, DATABASES)
    elif product_of(value.text) in {"", *FILE_PRODUCTS}:
        raise ConfigError(
            f"{value.assignment(value.text)} is no URL of a server that arena can use",
            why=f"the test databases are made on it; an {FILES.shown} file needs no server",
            cause=value.place,
            fix=value.assignment(OWN.example_url),
        )


def _check_names(names: Iterable[str], inipath: Path | None) -> None:
    known = [option.ini for option in OPTIONS]
    for name in names:
        if name.startswith("arena_") and name not in known:
            raise ConfigError(
                f"{name} is no option of pytest-arena",
                why="pytest-arena would ignore it silently",
                cause=f"a misspelt name in {_line_of(name, inipath)}",
                fix=f"{nearest(name, known)} = …   (pytest --help lists all)",
            )


def _check_values(config: Config, options: Mapping[str, OptionValue]) -> None:
    for option in (options["schema"], options["seed"]):
        pairs = _pairs(option.text)
        if len(dict(pairs)) < len(pairs):
            values = ", ".join(value for _, value in pairs)
            raise ConfigError(
                f"several values for one database: {values}",
                why="a database has one schema and one seed",
                cause=option.place,
                fix="one value, or a line `name = value` for each database:\n"
                "app = app.models:Base\n"
                "analytics = app.analytics:Base",
            )
    for value in config.schema.values():
        if not is_import_path(value) and not value.endswith((".ini", ".sql")):
            raise ConfigError(
                f"arena_schema = {value!r} has a wrong form",
                why="pytest-arena creates the tables of each test database by this value",
                cause=options["schema"].place,
                fix="one of: app.models:Base, app.models:metadata, alembic.ini, schema.sql, "
                "app.db:create_tables",
            )
    for value in config.seed.values():
        if not is_import_path(value):
            raise ConfigError(
                f"arena_seed = {value!r} is not of the form package.module:function",
                why="the function adds the rows that every test starts with",
                cause=options["seed"].place,
                fix=options["seed"].assignment("tests.seed:seed"),
            )
    for name in config.env:
        if not name.isidentifier():
            raise ConfigError(
                f"arena_env: {name!r} is not the name of an environment variable",
                why="arena_env says which variables hold database URLs, not what they hold",
                cause=options["env"].place,
                fix=options["env"].assignment("DATABASE_URL"),
            )


MARKERS = (
    (
        "arena(isolation='copy', keep='failed', seed=False, schema=False): settings of this test's "
        "database. isolation is how pytest-arena restores it. keep is when to keep a copy (never, "
        "failed, always). seed=False leaves out the rows of arena_seed. schema=False gives an "
        "empty database, for tests of migrations."
    ),
    (
        "scenario(name, spec='', rev='', row={}): the test proves this scenario of arena_specs. "
        "name is its name, 'Feature :: name' or '@ID'. spec is its file. rev is the reviewed "
        "version of its steps. row is one row of the examples of an outline. Without arena_specs "
        "the marker does nothing."
    ),
)
_MARKER_NAMES = ("isolation", "keep", "seed", "schema")
_MARKER_ARGUMENTS = inspect.Signature(
    [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in _MARKER_NAMES]
)


def marker_values(
    args: tuple[object, ...], kwargs: Mapping[str, object], *, place: str
) -> dict[str, object]:
    """Return the arguments of ``@pytest.mark.arena(…)``.

    Raises:
        ConfigError: an argument does not exist, or has a wrong value.
    """
    try:
        _MARKER_ARGUMENTS.bind_partial(*args, **kwargs)
    except TypeError as error:
        raise _wrong_marker(str(error), place, _right_marker(args, kwargs)) from None
    for name, choices in (("isolation", ISOLATIONS), ("keep", KEEPS)):
        if name in kwargs:
            form = f"@pytest.mark.arena({name}='{{}}')"
            _check_choice(OptionValue(str(kwargs[name]), form, place), choices)
    for name in ("seed", "schema"):
        if not isinstance(kwargs.get(name, True), bool):
            problem = f"{name}={kwargs[name]!r} is neither True nor False"
            raise _wrong_marker(problem, place, f"@pytest.mark.arena({name}=False)")
    return dict(kwargs)


def _right_marker(args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    """Return the marker with the same values, each under a name that exists.

    It adds no other argument: a pasted ``schema=False`` would give an empty database.
    """
    named = {}
    for value in args:
        name = "keep" if value in KEEPS else "isolation"
        named[name] = value
    for name, value in kwargs.items():
        named[nearest(name, _MARKER_NAMES)] = value
    arguments = ", ".join(f"{name}={value!r}" for name, value in named.items())
    return f"@pytest.mark.arena({arguments})"


def _wrong_marker(problem: str, place: str, fix: str) -> ConfigError:
    return ConfigError(
        f"@pytest.mark.arena: {problem}",
        why="the test would not run as it says",
        cause=place,
        fix=fix,
    )
