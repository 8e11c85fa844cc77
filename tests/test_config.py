"""Options: read once, checked once, and documented as they are."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._config._load import load_attribute, load_function
from pytest_arena._config._options import FLAGS, OPTIONS, Option
from pytest_arena._config._read import Config, load_config, marker_values
from pytest_arena.errors import ConfigError
from tests.options_page import PAGE, written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"


def read(
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Mapping[str, object] | None = None,
    inipath: Path | None = None,
    names: Sequence[str] = (),
) -> Config:
    """Read options as the plugin does, from plain dictionaries."""
    return load_config(
        flags=flags or {},
        environ=environ or {},
        ini=lambda name: (file or {}).get(name, ""),
        root=Path("/project"),
        inipath=inipath,
        names=names,
    )


def value_of(config: Config, option: Option) -> Any:
    """The value as one text, whatever type it has in the end."""
    value = getattr(config, option.name)
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else value.get("", "")


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_option_comes_from_the_file_the_environment_and_the_command_line(
    option: Option,
) -> None:
    """The last of these wins; without any of them the default stands."""
    other = {True: "sqlite", False: "never" if option.choices else "a.b:c"}[
        option.name == "database"
    ]
    if option.choices:
        other = next(one for one in option.choices if one != option.example)
    ini = [option.example] if option.many else option.example
    file: dict[str, object] = {option.ini: ini}
    environ, flags = {option.variable: other}, {option.name: other}
    if option.name == "scenarios":
        file["arena_specs"] = ["docs"]  # without them nobody can be strict
    if option.form == "seconds":
        environ, flags, other = {option.variable: "0.5"}, {option.name: "0.5"}, "0.5"
    if option.name == "env":
        environ, flags, other = {option.variable: "OTHER"}, {option.name: "OTHER"}, "OTHER"
    assert value_of(read(), option) == option.default
    assert value_of(read(file=file), option) == option.example
    assert value_of(read(file=file, environ=environ), option) == other
    example = {option.name: option.example}
    assert value_of(read(file=file, flags=example, environ=environ), option) == option.example
    assert value_of(read(file=file, flags=flags), option) == other


def test_an_empty_variable_means_nothing_and_an_empty_word_means_none() -> None:
    """CI systems set empty variables; nobody types an empty word by accident."""
    file = {"arena_app": "app:app"}
    assert read(file=file, environ={"ARENA_APP": " "}).app == "app:app"
    assert read(file=file, flags={"app": ""}).app == ""
    assert read(flags={"env": ""}).env == ()


def test_lists_take_commas_and_lines() -> None:
    """On the command line and in the environment there is but one word for several values."""
    assert read(flags={"allow": "/a/*.db , sqlite:///b"}).allow == ("/a/*.db", "sqlite:///b")
    assert read(environ={"ARENA_ENV": "ONE,\nTWO"}).env == ("ONE", "TWO")
    assert read(file={"arena_env": ["ONE", "TWO"]}).env == ("ONE", "TWO")


def test_several_databases_have_a_line_each() -> None:
    """One value is the first database's."""
    assert read(flags={"schema": "app:Base"}).schema == {"": "app:Base"}
    lines = "shop = app:Base\n  my-log.old = log.sql\n"
    expected = {"shop": "app:Base", "my-log.old": "log.sql"}
    assert read(file={"arena_schema": lines}).schema == expected


def test_a_reason_is_a_sentence_and_evidence_are_words() -> None:
    """A waiver's reason may have commas; the names of evidence may be parted by blanks."""
    lines = ["@manual 2027-03-31 by hand, each release", "@wip 2027-01-31 not yet"]
    assert read(file={"arena_scenario_waive": lines}).scenario_waive == tuple(lines)
    for text in ("requested asserted", "requested, asserted", "requested\nasserted"):
        config = read(file={"arena_scenario_evidence": text})
        assert config.scenario_evidence == ("requested", "asserted")


@pytest.mark.parametrize(
    "flags,name",
    [
        ({"scenarios": "strict"}, "arena_scenarios = strict"),
        ({"scenario": ["@BTL-1"]}, "--scenario"),
        ({"scenarios_out": ["json:out.json"]}, "--scenarios-out"),
        ({"scenarios_sabotage": True}, "--scenarios-sabotage"),
    ],
)
def test_nothing_is_asked_of_scenarios_that_nobody_named(
    flags: Mapping[str, object], name: str
) -> None:
    """A gate that looks at nothing would always be open. Switched off, it asks nothing."""
    with pytest.raises(ConfigError, match="names no specification") as caught:
        read(flags=flags)
    assert name in caught.value.what
    assert read(flags={"specs": "docs", **flags}).has_scenarios
    if "scenarios" not in flags:
        assert not read(flags={"scenarios": "off", **flags}).has_scenarios


@pytest.mark.parametrize("text,is_on", [("1", True), ("yes", True), ("0", False), ("", False)])
def test_switches_from_the_environment(text: str, *, is_on: bool) -> None:
    """As variables of this kind are written."""
    assert read(environ={"ARENA_REBUILD": text}).rebuild is is_on
    assert read(environ={"ARENA_VERIFY": text}).verify is is_on


def test_the_cache_is_absolute_and_knows_the_home_folder() -> None:
    """A test may change the working folder."""
    assert read(environ={"ARENA_CACHE": "cache"}).cache == Path.cwd() / "cache"
    assert read(environ={"ARENA_CACHE": "~/x"}).cache == Path.home() / "x"


@pytest.mark.parametrize(
    "name,value,what,fix",
    [
        ("isolation", "cpoy", "is none of: auto, copy, undo, clone", "--arena-isolation=copy"),
        ("isolation", "", "is none of: auto, copy", "--arena-isolation="),
        ("database", "mysq", "is none of: auto, sqlite, postgresql, mysql", "-database=mysql"),
        ("database", "sqlite:///x.db", "is no URL of a server", "--arena-database=postgresql://"),
        ("database", "mssql://me:s3cret@h/d", "is no URL of a server", "postgresql://"),
        ("database", "postgresql:/me:s3cret@h/d", "is none of: auto", "postgresql"),
        ("database", "sqllite", "is none of: auto, sqlite", "--arena-database=sqlite"),
        ("drivers", "refuze", "is none of: refuse, redirect, off", "--arena-drivers=refuse"),
        ("lifespan", "sesion", "is none of: on, session, off", "--arena-lifespan=session"),
        ("lost_writes", "FAIL", "is none of: warn, fail, off", "--arena-lost-writes=fail"),
        ("scenarios", "strikt", "is none of: off, report, strict", "--arena-scenarios=strict"),
        ("scenario_evidence", "asserted, sedeed", "none of: seeded, requested", "=seeded"),
        ("keep", "fail", "is none of: never, failed, always", "--arena-keep=failed"),
        ("schema", "schema.txt", "has a wrong form", "app.models:Base"),
        ("schema", "app:Base\napp:Other", "several values for one database", "name = value"),
        ("seed", "seed.py", "not of the form", "--arena-seed=tests.seed:seed"),
        ("env", "sqlite:///x.db", "is not the name of an environment variable", "DATABASE_URL"),
    ],
)
def test_a_value_that_cannot_be_right(name: str, value: str, what: str, fix: str) -> None:
    """It says what it may be, and the next step as it is to be written there."""
    with pytest.raises(ConfigError) as caught:
        read(flags={name: value})
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert "the command line" in caught.value.cause
    assert "s3cret" not in str(caught.value)


def test_the_place_of_a_value_is_named(tmp_path: Path) -> None:
    """A line of the file, or the variable: that is where it has to be mended."""
    file = tmp_path / "pytest.ini"
    file.write_text("[pytest]\naddopts = -q\narena_keep = sometimes\n")
    with pytest.raises(ConfigError) as caught:
        read(file={"arena_keep": "sometimes"}, inipath=file)
    assert f"{file}:3  arena_keep = sometimes" in caught.value.cause
    with pytest.raises(ConfigError) as caught:
        read(environ={"ARENA_KEEP": "sometimes"})
    assert caught.value.fix == "ARENA_KEEP=never"
    assert "the environment" in caught.value.cause


def test_a_name_that_is_no_option(tmp_path: Path) -> None:
    """Names of others are none of our business."""
    file = tmp_path / "pytest.ini"
    file.write_text("[pytest]\narena_shema = app:Base\n")
    assert read(names=["arena_app", "asyncio_mode"]).app == ""
    with pytest.raises(ConfigError, match="arena_shema is no option") as caught:
        read(names=["arena_shema"], inipath=file)
    assert caught.value.fix.startswith("arena_schema = ")
    assert f"{file}:2" in caught.value.cause


@pytest.mark.parametrize(
    "args,kwargs,what",
    [
        (("copy",), {}, "too many positional arguments"),
        ((), {"isolate": "copy"}, "unexpected keyword argument 'isolate'"),
        ((), {"isolation": "cpoy"}, "is none of: auto, copy"),
        ((), {"keep": True}, "is none of: never, failed, always"),
        ((), {"seed": "no"}, "seed='no' is neither True nor False"),
        ((), {"schema": None}, "schema=None is neither True nor False"),
    ],
)
def test_a_marker_that_cannot_be_right(
    args: tuple[Any, ...], kwargs: dict[str, Any], what: str
) -> None:
    """The line of the test is named."""
    with pytest.raises(ConfigError) as caught:
        marker_values(args, kwargs, place="test_x.py:7")
    assert what in caught.value.what
    assert "test_x.py:7" in caught.value.cause
    assert "@pytest.mark.arena(" in caught.value.fix


@pytest.mark.parametrize(
    "args,kwargs,fix",
    [
        (("copy",), {}, "(isolation='copy')"),
        (("failed",), {}, "(keep='failed')"),
        ((), {"sead": False}, "(seed=False)"),
        ((), {"sceham": True, "keep": "always"}, "(schema=True, keep='always')"),
        ((), {"keep": "fialed"}, "(keep='failed')"),
    ],
)
def test_what_a_marker_should_be_asks_for_nothing_else(
    args: tuple[Any, ...], kwargs: dict[str, Any], fix: str
) -> None:
    """Whoever pastes it has the mistake mended, and no empty database."""
    with pytest.raises(ConfigError) as caught:
        marker_values(args, kwargs, place="test_x.py:7")
    assert caught.value.fix == f"@pytest.mark.arena{fix}"


def test_a_marker_says_what_it_was_given() -> None:
    """And nothing of what it was not."""
    given = {"isolation": "copy", "seed": False}
    assert marker_values((), given, place="") == given


MODULES = {
    "deep": "import deeper\n",
    "deeper": "\n\nimport nothing_here\n",
    "raising": "def f():\n    raise RuntimeError('SECRET_KEY\\nis\\nnot\\nset')\nf()\n",
    "silent": "raise ValueError\n",
    "wrong": "x = = 1\n",
    "leaving": "import sys\nsys.exit('no settings')\n",
    "partly": "from deeper_still import app\n",
    "deeper_still": "appl = 1\n",
    "package/__init__": "",
    "package/models": "",
    "mixed": "app_name = 'x'\nseeds = 1\nclass Seed: ...\ndef sow(session): ...\n",
    "right": "import os\nfrom pathlib import Path\ndef application(): ...\ndef two(a, b): ...\n",
}


@pytest.mark.parametrize(
    "path,what,cause,fix",
    [
        (
            "deep:app",
            "No module named 'nothing_here'",
            "deeper.py:3  import nothing_here",
            "correct",
        ),
        ("raising:app", "RuntimeError: SECRET_KEY\nis\nnot", "raising.py:2", "python -c"),
        ("silent:app", "ValueError", "silent.py:1", "correct"),
        ("wrong:app", "SyntaxError", "wrong.py:1  x = = 1", "correct"),
        ("leaving:app", "SystemExit: no settings", "leaving.py:2", "correct"),
        ("partly:app", "ImportError: cannot import name 'app'", "partly.py:1", "correct"),
        ("right:app", "has no attribute 'app'", "defines application, two", "right:application"),
        ("rihgt:app", "No module named 'rihgt'", "no module 'rihgt'", "arena_app = right:app"),
        ("package.modles:Base", "No module named", "no module", "arena_app = package.models:Base"),
        ("package.other:Base", "No module named", "no module", "pythonpath = <the folder of"),
        ("nowhere:app", "No module named", "no module", "pythonpath = <the folder of nowhere>"),
        ("right.application", "not of the form", "pytest.ini:3", "arena_app = right:application"),
        ("right/sub.py", "not of the form", "pytest.ini:3", "arena_app = right:sub"),
        ("", "not of the form", "pytest.ini:3", "arena_app = app.main:app"),
    ],
)
def test_a_path_that_leads_nowhere(  # the table is what it is about
    path: str, what: str, cause: str, fix: str, modules: None
) -> None:
    """Why, in which line, and what was probably meant."""
    del modules
    with pytest.raises(ConfigError) as caught:
        load_attribute(path, option="arena_app", source="pytest.ini:3")
    assert what in caught.value.what
    assert cause in caught.value.cause
    assert fix in caught.value.fix


def test_only_what_may_be_meant_is_named(modules: None) -> None:
    """A seed is a function; where the module has none, no other word is put in its place."""
    del modules
    for path, fix in (
        ("mixed:seed", "arena_seed = mixed:sow"),
        ("raised_to:seed", "pythonpath = "),
        ("deeper_still:seed", "name the module that has seed; deeper_still has nothing of"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_attribute(path, option="arena_seed", likely=inspect.isroutine)
        assert caught.value.fix.startswith(fix)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that are wrong in many ways, on sys.path and in the working folder."""
    import sys  # noqa: PLC0415 - for this alone

    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_package_below_src_is_found_for_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual reason: pytest does not look there by itself."""
    (tmp_path / "src" / "shop").mkdir(parents=True)
    (tmp_path / "src" / "shop" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_attribute("shop.main:app", option="arena_app")
    assert caught.value.fix.startswith("pythonpath = src")


def test_a_login_takes_a_client_and_a_role(modules: None) -> None:
    """Anything that can be called like that will do."""
    del modules
    assert load_function("right:two", "client", "role", option="arena_login").__name__ == "two"
    for path in ("right:application", "right:os"):
        with pytest.raises(ConfigError, match=r"called with \(client, role\)"):
            load_function(path, "client", "role", option="arena_login")


# The documentation.


def test_the_page_of_options_is_what_the_code_says() -> None:
    """`python -m tests.options_page` writes it; nothing else has a heading like its."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "python -m tests.options_page"
    headings = [line[4:-1] for line in page.splitlines() if line.startswith("## `")]
    names = [*(option.ini for option in OPTIONS), *(flag.flag for flag in FLAGS)]
    assert headings == [*names, "ARENA_CACHE"]


def test_the_page_of_fixtures_names_each_of_them() -> None:
    """The fixtures that the plugin has, and no other."""
    from pytest_arena import _fixtures  # noqa: PLC0415 - asked here alone

    page = (REFERENCE / "fixtures.md").read_text(encoding="utf-8")
    headings = [line[4:-1] for line in page.splitlines() if line.startswith("## `")]
    names = [name for name in _fixtures.__all__ if name != "RUNS"]
    assert sorted(headings) == sorted(
        [*names, "scenario", "@pytest.mark.arena", "@pytest.mark.scenario"]
    )
    for name in ("isolation", "keep", "seed", "schema", "spec", "rev", "row"):
        assert f"`{name}`" in page
