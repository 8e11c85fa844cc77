"""Is the wheel what a user needs, and nothing else?"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from pytest_arena._postgresql._servers import OLDEST
from pytest_arena.errors import ArenaError

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT)["project"]
EXTRAS = PROJECT["optional-dependencies"]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("skills/**/*.md")]
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

# What a user's own environment shows of it; run without pytest's plugins, without its dependencies.
LOOK = """
from importlib.metadata import distribution, entry_points
(found,) = [one for one in entry_points(group="pytest11") if one.name == "arena"]
print(found.value)
files = distribution("pytest-arena").files
print([file.locate().is_file() for file in files if file.name == "py.typed"])
print(sorted({file.parts[0] for file in files}))
"""


def run(*command: str) -> str:
    """Run a command, and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout in an environment of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT))
    (file,) = folder.glob("*.whl")
    return file


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """No tests, no examples, no caches; the marker for type checkers."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "pytest_arena/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"pytest_arena"}
    assert not [name for name in names if re.search("__pycache__|/tests?[_/]", name)]
    sources = {path.relative_to(ROOT / "src").as_posix() for path in ROOT.glob("src/**/*.py")}
    assert sources <= set(names)


@pytest.mark.slow
def test_the_wheel_installs_and_pytest_finds_the_plugin(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment, without a network."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(next((tmp_path / "venv").glob("[bS]*/python*")))
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", str(wheel))
    plugin, typed, tops = run(python, "-c", LOOK).splitlines()
    assert plugin == "pytest_arena.plugin"
    assert typed == "[True]"
    assert "tests" not in tops


@pytest.mark.slow
def test_the_description_has_no_relative_link(wheel: Path) -> None:
    """It is the README, whose links lead to the files of this version; its code is as it was."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        description = str(Parser().parsestr(archive.read(name).decode()).get_payload())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert FENCE.findall(description) == FENCE.findall(readme)
    assert LINK.findall(FENCE.sub("", readme))
    assert LINK.findall(FENCE.sub("", description)) == []


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_each_extra_installs_from_wheels_alone(wheel: Path, tmp_path: Path, extra: str) -> None:
    """Nobody needs a compiler."""
    run(
        *(sys.executable, "-m", "pip", "download", "--only-binary", ":all:", "--quiet"),
        *("--dest", str(tmp_path), f"{wheel}[{extra}]"),
    )
    assert list(tmp_path.glob("*.whl"))


def test_the_address_is_written_in_one_place() -> None:
    """In pyproject.toml, where each is the same one; pages and code have relative links."""
    home = PROJECT["urls"]["Source"]
    host, owner, name = home.removeprefix("https://").split("/")
    address = re.compile(rf"{re.escape(host)}/[\w-]+/{name}\b")
    assert set(address.findall(PYPROJECT)) == {f"{host}/{owner}/{name}"}
    files = [*PAGES, *ROOT.glob("src/**/*.py"), *ROOT.glob("docs/**/*.py")]
    assert [file for file in files if address.search(file.read_text(encoding="utf-8"))] == []
    assert PROJECT["urls"]["Documentation"] in str(ArenaError("", why="", cause="", fix=""))


def test_the_page_of_support_says_what_the_metadata_say() -> None:
    """Its Pythons, the lowest versions, the servers that the suite is run on."""
    page = (ROOT / "docs/reference/support.md").read_text(encoding="utf-8")
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    nightly = (ROOT / ".github/workflows/nightly.yml").read_text(encoding="utf-8")
    servers = re.findall(r'"(\d+)"', nightly.partition("postgresql: [")[2].partition("]")[0])
    assert f"| Python | CPython {', '.join(pythons)} |" in page
    assert f"| PostgreSQL | {', '.join(servers)} |" in page
    assert int(servers[0]) == OLDEST
    wanted = [*PROJECT["dependencies"], *EXTRAS["sqlite"], *EXTRAS["postgresql"]]
    lowest = {re.split(r"[>\[]", line)[0]: line.rpartition(">=")[2] for line in wanted}
    for name, shown in {"sqlalchemy": "SQLAlchemy |", "pytest": "pytest |"}.items():
        assert f"| {shown} {lowest[name]} and later" in page
    for name in ("aiosqlite", "psycopg"):
        assert f"{name} {lowest[name]}," in page


def test_extras_name_what_the_messages_tell_users_to_install() -> None:
    """`pip install 'pytest-arena[…]'` in a message is an extra that there is."""
    told = {
        extra
        for file in ROOT.glob("src/**/*.py")
        for extra in re.findall(r"pytest-arena\[(\w+)\]", file.read_text(encoding="utf-8"))
    }
    assert told <= set(EXTRAS)
