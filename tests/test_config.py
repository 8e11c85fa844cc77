"""Options: read once, checked once, and documented."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._config._load import load_attribute
from pytest_arena._config._options import FLAGS, OPTIONS
from pytest_arena._config._read import Config, load_config
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
FILE = Path("/project/pytest.ini")


def read(
    file: Mapping[str, object] | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    return load_config(
        flags=flags or {},
        environ=environ or {},
        ini=lambda name: (file or {}).get(name, ""),
        root=FILE.parent,
        file=FILE,
    )


def test_the_command_line_wins_over_the_environment_and_that_over_the_file() -> None:
    """An empty variable counts as none: CI systems set such."""
    file = {"arena_database": "sqlite", "arena_keep": "always"}
    assert read(file, environ={"ARENA_DATABASE": " "}).database == "sqlite"
    environ = {"ARENA_DATABASE": "mysql"}
    assert read(file, environ=environ).database == "mysql"
    assert read(file, environ=environ, flags={"database": "own"}).database == "own"
    assert read(file, flags={"keep": "failed"}).keep == "failed"


def test_lists_take_commas_and_lines() -> None:
    """`-o` has one word for several values."""
    for value in ("ONE, TWO", "ONE,\nTWO", ["ONE", "TWO"]):
        assert read({"arena_env": value}).env == ("ONE", "TWO")


@pytest.mark.parametrize(
    "flags",
    [
        {"scenarios": "strict"},
        {"scenarios_out": ["json:o.json"]},
        {"scenarios_accept": True},
        {"scenarios_stubs": "x"},
    ],
)
def test_nothing_is_asked_of_scenarios_that_nobody_named(flags: Mapping[str, object]) -> None:
    """The run would check nothing, and would pass."""
    with pytest.raises(ConfigError, match="names no specification"):
        read(flags=flags)
    assert read({"arena_specs": "docs"}, flags=flags).specs == ("docs",)


def test_the_cache_is_absolute() -> None:
    """A test may change the working folder."""
    assert read(environ={"ARENA_CACHE": "cache"}).cache == Path.cwd() / "cache"
    assert read(environ={"ARENA_CACHE": "~/x"}).cache == Path.home() / "x"


@pytest.mark.parametrize(
    "name, value, fix",
    [
        ("isolation", "cpoy", "copy"),
        ("database", "mysq", "mysql"),
        ("database", "sqlite:///x.db", "postgresql://"),
        ("database", "mssql://me:s3cret@h/d", "postgresql://"),
        ("keep", "always://x", "always"),
        ("settle", "soon", "1"),
        ("settle", "-1", "1"),
        ("schema", "schema.txt", "app.models:Base"),
        ("schema", "app:Base\napp:Other", "name = value"),
        ("seed", "seed.py", "tests.seed:seed"),
        ("env", "sqlite:///x.db", "DATABASE_URL"),
        ("network", "api.example.org", "refuse"),
        ("network", "refuse https://api.example.org", "refuse"),
    ],
)
def test_a_wrong_value_is_named_with_its_option_and_its_file(
    name: str, value: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read({f"arena_{name}": value})
    assert f"arena_{name} = " in caught.value.what
    assert str(FILE) in caught.value.cause
    assert fix in str(caught.value)
    assert "s3cret" not in str(caught.value)


MODULES = {
    "deep": "import deeper\n",
    "deeper": "\n\nimport nothing_here\n",
    "raising": "def f():\n    raise RuntimeError('SECRET_KEY is not set')\nf()\n",
    "wrong": "x = = 1\n",
    "unset": "import os\nos.environ['NO_SUCH_URL']\n",
    "pydantic_settings": "import pydantic\nclass S(pydantic.BaseModel):\n    a: int\nS()\n",
    "leaving": "import sys\nsys.exit('no settings')\n",
    "refused": "import pytest_arena as p\nraise p.ConfigError('a', why='b', cause='c', fix='go')",
    "right": "def application(): ...\n",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that are wrong in many ways, on sys.path and in the working folder."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "path, what, cause, fix",
    [
        ("deep:app", "No module named 'nothing_here'", "deeper.py:3", "correct that line"),
        ("raising:app", "SECRET_KEY is not set", "raising.py:2", "python -c"),
        ("wrong:app", "SyntaxError", "wrong.py:1", "correct that line"),
        ("unset:app", "KeyError", "unset.py:2", "os.environ['NO_SUCH_URL'] = "),
        ("pydantic_settings:app", "Field", "settings.py:4", "os.environ['<ENV_PREFIX>A'] = "),
        ("leaving:app", "no settings", "leaving.py:2", "correct that line"),
        ("refused:app", "ConfigError: a", "refused.py:2", "go"),
        ("right:app", "has no attribute 'app'", "right.py", "name the module"),
        ("nowhere:app", "No module named 'nowhere'", "pytest.ini", "correct nowhere"),
        ("shop.main:app", "No module named 'shop'", "pytest.ini", "pythonpath = <"),
        ("right.application", "not of the form", "pytest.ini", "arena_app = "),
    ],
)
@pytest.mark.usefixtures("modules")
def test_a_path_that_leads_nowhere(path: str, what: str, cause: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_attribute(path, option="arena_app", source="pytest.ini")
    assert what in caught.value.what
    assert cause in caught.value.cause
    assert fix in caught.value.fix


# The documentation.


def test_the_page_of_options_has_each_option_with_its_values_and_its_default() -> None:
    page = (REFERENCE / "options.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"(?ms)^## `([^`]+)`\n(.*?)(?=^## |\Z)", page))
    assert sorted(sections) == sorted(option.ini for option in OPTIONS)
    for option in OPTIONS:
        section = sections[option.ini]
        assert f"Default: {f'`{option.default}`' if option.default else 'none'}." in section
        for word in (*option.choices, option.flag):
            assert not word or f"`{word}`" in section, (option.name, word)
    assert [flag for flag in FLAGS if f"`{flag}" not in page] == []


def test_the_page_of_fixtures_names_each_of_them() -> None:
    from pytest_arena import _fixtures  # noqa: PLC0415 - asked here alone

    page = (REFERENCE / "fixtures.md").read_text(encoding="utf-8")
    headings = re.findall(r"(?m)^## (`.*)", page)
    names = [name for name in _fixtures.__all__ if name != "RUNS"]
    assert sorted(re.findall("`([^`]+)`", "".join(headings))) == sorted(
        [*names, "scenario", "@pytest.mark.arena", "@pytest.mark.scenario"]
    )
    for name in ("isolation", "keep", "seed", "schema"):
        assert re.search(rf"`{name}\b", page)
