"""What is released, built from HEAD, and environments that have nothing else.

Nothing of the checkout is imported but `tests.pages`, and no other conftest is read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# What would change what pip, pytest or the interpreter does in an environment.
FOREIGN = re.compile(r"ARENA_|DATABASE_URL$|PYTEST_|PYTHON|VIRTUAL_ENV$|PG|FORCE_COLOR$|CI$")


def call(*words: object, folder: Path) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not FOREIGN.match(name)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}"
    return done.stdout


def pytest_report_header() -> list[str]:
    """Say what is checked."""
    commit = call("git", "log", "-1", "--format=%h %s", folder=ROOT).strip()
    left_out = call("git", "status", "--porcelain", folder=ROOT).count("\n")
    return [f"HEAD: {commit}"] + [f"left out: {left_out} uncommitted changes"] * bool(left_out)


@dataclass(frozen=True, slots=True)
class Release:
    """The files of HEAD, and what is built of them."""

    source: Path
    wheel: Path
    sdist: Path

    @property
    def project(self) -> dict[str, object]:
        read = tomllib.loads((self.source / "pyproject.toml").read_text(encoding="utf-8"))
        project: dict[str, object] = read["project"]
        return project

    @property
    def version(self) -> str:
        return str(self.project["version"])

    @property
    def files(self) -> set[str]:
        files = (path for path in self.source.rglob("*") if path.is_file())
        return {path.relative_to(self.source).as_posix() for path in files}


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The wheel is built from the sdist. Both are left in `dist`, to be published."""
    source = tmp_path_factory.mktemp("head")
    archive = source.with_suffix(".tar")
    call("git", "archive", "--output", archive, "HEAD", folder=ROOT)
    with tarfile.open(archive) as files:
        files.extractall(source, filter="data")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    call(sys.executable, "-m", "build", "--outdir", dist, source, folder=source.parent)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return Release(source, wheel, sdist)


@dataclass(frozen=True, slots=True)
class Environment:
    """A fresh virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return next(self.folder.glob("[bS]*/python*"))

    def call(self, program: str, *words: object, folder: Path) -> str:
        return call(self.python.with_name(program), *words, folder=folder)

    def install(self, *wanted: object) -> None:
        words = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        call(self.python, *words, *wanted, folder=self.folder)


def found(version: str) -> str | None:
    """The Python of this version. A version manager's shim may exist, and refuse to start."""
    program = shutil.which(f"python{version}")
    words = [program or "", "-c", "import ensurepip, venv"]
    runs = program and subprocess.run(words, capture_output=True, check=False).returncode == 0
    return program if runs else None


def supported() -> list[str]:
    """The Pythons that the metadata name."""
    return re.findall(r'Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(params=supported(), ids="Python {}".format)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Environment:
    """A fresh environment of each Python that is found."""
    if (python := found(request.param)) is None:
        pytest.skip(f"Python {request.param} was not found")
    call(python, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    return Environment(tmp_path / "venv")
