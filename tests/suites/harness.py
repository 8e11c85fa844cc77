"""Run each suite once for each database, and compare its facts with what its tests expect."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests import forks
from tests.conformance.story_mysql_server import StoryMySQLServer

ROOT = Path(__file__).parent
# No suite takes longer than a tenth of it on an idle machine.
PATIENCE_SECONDS = 240
_FACTS = "facts.jsonl"
_ENDED = "ended"
_OTHERS = ("ARENA_", "CI", "BUILD_NUMBER", "COV_", "DATABASE_URL", "PG", "PYTEST_")
_DRIVER, _PING = _OF_APP = ("-odriver=", "-oping")  # settings: its driver, and a pool that pings
_DRIVERS = {
    "sqlite": ("sqlite+aiosqlite", "sqlite"),
    "postgresql": ("postgresql+asyncpg", "postgresql+psycopg"),
    "mysql": ("mysql+asyncmy", "mysql+pymysql"),
}


@dataclass(frozen=True)
class Suite:
    """A folder with tests as a user has it, and the database that it runs on.

    ``clone`` and ``rollback`` are PostgreSQL with this isolation. More words are for pytest:
    options, or the files whose stories depend on the database.
    """

    folder: Path
    setting: str
    patience: float = PATIENCE_SECONDS

    def __str__(self) -> str:
        return f"{self.folder.name}-{self.setting}".replace(" -o", "-").replace(" ", "-")

    @property
    def database(self) -> str:
        """Return the first word of the setting."""
        return self.setting.split()[0]

    def stories(self) -> list[str]:
        files = [word for word in self.setting.split() if word.endswith(".py")]
        found = _stories(self.folder)
        return [story for story in found if not files or story.partition("::")[0] in files]

    def result(self, shared: Path) -> Result:
        place = shared / str(self)
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / "lock"):
            if not (place / _ENDED).exists():
                (place / _ENDED).write_text(self._run(place), encoding="utf-8")
        return _read(self, place)

    def _run(self, place: Path) -> str:
        """Run pytest in a copy of the suite. Return how it ended."""
        environment = self._environment(place)  # without a server of MySQL it skips
        project = place / "project"
        shutil.copytree(ROOT / "apps", project)
        shutil.copytree(self.folder, project, dirs_exist_ok=True)
        shutil.copy(ROOT / "recorder.py", project)
        plugins = ("pytest_asyncio.plugin", "pytest_arena.plugin", "recorder")
        command = [sys.executable, "-m", "pytest", *(f"-p{name}" for name in plugins)]
        command += [word for word in self.setting.split()[1:] if not word.startswith(_OF_APP)]
        try:
            status, output = forks.run(command, project, environment, self.patience)
            ended = f"exit status {status}"
        except subprocess.TimeoutExpired as error:
            output = (error.output or b"").decode()
            ended = f"killed after {self.patience} seconds"
        (place / "output").write_text(output, encoding="utf-8")
        return ended

    def _environment(self, place: Path) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)
        }
        product = self.database if self.database in _DRIVERS else "postgresql"
        driver = _DRIVERS[product][any(word in self.folder.name for word in ("_sync", "_flask"))]
        env = {
            "ARENA_CACHE": str(place / "cache"),
            "COLUMNS": "120",
            "DATABASE_URL": f"{driver}://me:s3cret@db.example.org/shop",
            "PINGS": str(_PING in self.setting),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "SUITE_FACTS": str(place / _FACTS),
        }
        if product == "sqlite":
            env["DATABASE_URL"] = f"{driver}:///shop.db"
        elif product == "mysql":
            env["ARENA_DATABASE"] = str(_mysql().url("mysql").render_as_string(hide_password=False))
        else:
            env["ARENA_DATABASE"] = os.environ["TESTS_POSTGRESQL"]
        for word in self.setting.split():
            if word.startswith(_DRIVER):
                named = f"+{word.removeprefix(_DRIVER)}"
                env["DATABASE_URL"] = re.sub(r"\+\w+", named, env["DATABASE_URL"], count=1)
        if self.database != product:
            env["PYTEST_ADDOPTS"] = f"--arena-isolation={self.database}"
        return {**inherited, **env}


@cache
def _stories(folder: Path) -> list[str]:
    return [
        f"{path.name}::{name}"
        for path in sorted(folder.glob("test_*.py"))
        for name in _functions(ast.parse(path.read_text(encoding="utf-8")))
    ]


_mysql = cache(StoryMySQLServer)


def _functions(tree: ast.Module | ast.ClassDef) -> list[str]:
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("test"):
                names.append(node.name)
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            names += [f"{node.name}::{name}" for name in _functions(node)]
    return names


@dataclass
class Result:
    suite: Suite
    place: Path
    ended: str
    output: str
    # By the test function, without parameters: the phases of each test.
    phases: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    collected: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    status: int | None = None

    def add(self, facts: dict[str, Any]) -> None:
        if "collected" in facts:
            self.collected.update(_story(test) for test in facts["collected"])
        elif "broken" in facts:
            self.broken.append(f"{facts['broken']}\n{facts['text']}")
        elif "warning" in facts:
            self.warnings.setdefault(facts["test"], []).append(facts["warning"])
        elif "status" in facts:
            self.status = facts["status"]
        elif "phase" in facts:
            self.phases.setdefault(_story(facts["test"]), []).append(facts)

    def skipped(self, story: str) -> str:
        phases = self.phases.get(story, [])
        reasons = [phase["text"] for phase in phases if phase["outcome"] == "skipped"]
        is_run = any(phase["phase"] == "call" and phase["outcome"] != "skipped" for phase in phases)
        return "" if is_run or not reasons else reasons[0]

    def problems(self, story: str) -> list[str]:
        tests: dict[str, list[dict[str, Any]]] = {}
        for phase in self.phases.get(story, []):
            tests.setdefault(phase["test"], []).append(phase)
        if not tests:
            return [f"{story} did not run: {self.suite}-whole says why"]
        found: list[str] = []
        for test, phases in tests.items():
            found += [f"{test}: {problem}" for problem in _problems(phases)]
            blocks = re.findall(rf"   \({re.escape(test)}\)\n((?: .*\n)*)", self.output)
            replayed = re.findall(r"^  (\w+Warning): ", "".join(blocks), re.MULTILINE)
            warned = sorted(self.warnings.get(test, []) + replayed)
            if warned != phases[0].get("finds", warned):
                found.append(f"{test}: the warnings are {warned}\n{self.output}")
        return found + self._wrong_text(story)

    def whole(self) -> list[str]:
        found = list(self.broken)
        stories = set(self.suite.stories())
        if self.ended != f"exit status {self.status}" or self.status not in {0, 1}:
            found.append(f"the session did not end ({self.ended})\n{self.output}")
        unknown = (self.collected | {*self.phases}) - stories
        found += [f"{story} has no test in the outer suite" for story in sorted(unknown)]
        files = sorted((self.place / "project").glob("*.db*"))
        found += [f"the app has reached the developer's file {path.name}" for path in files]
        old = self._golden().keys() - {*_stories(self.suite.folder)}
        found += [f"the golden file has {story}, which is no test" for story in sorted(old)]
        if "s3cret" in self.output:
            found.append(f"the output has a password\n{self.output}")
        return found

    def _wrong_text(self, story: str) -> list[str]:
        """Compare the story's report with the golden files, where they have an entry."""
        wanted = self._golden().get(story)
        texts = [phase["story"].strip() for phase in self.phases[story] if phase.get("story")]
        texts = [_OF_ASYNCPG.sub("(asyncpg) ", text) for text in texts]
        texts = [_COLUMNS.sub("SELECT … (", text) for text in texts]
        if wanted is None:
            return []
        # pytest itself names the file of a fixture that it refuses.
        phases = [phase for phase in self.phases[story] if phase.get("error") != "Failed"]
        if any("site-packages" in phase["text"] for phase in phases):
            return ["the report shows lines of a library"]
        if texts[:1] == [wanted]:
            return []
        return [f"the golden file has for {story}:\n{wanted}\n\nit should be:\n{''.join(texts)}"]

    def _golden(self) -> dict[str, str]:
        entries: dict[str, str] = {}
        for name in ("golden.txt", f"golden-{self.suite.database}.txt"):
            path = self.suite.folder / name
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            for entry in text.split("== ")[1:]:
                story, _, body = entry.partition(" ==\n")
                entries[story] = body.strip()
        return entries


# Before SQLAlchemy 2.1 another class has this error.
_OF_ASYNCPG = re.compile(r"\(sqlalchemy\.dialects\.\w+\.asyncpg\.\w+\) (<class '[\w.]+'>: )?")
_COLUMNS = re.compile(r"^SELECT .* \((?=\d+ of )", re.MULTILINE)  # SQLAlchemy 2.0 renames them


@cache
def _read(suite: Suite, place: Path) -> Result:
    output = (place / "output").read_text(encoding="utf-8")
    result = Result(suite, place, (place / _ENDED).read_text(encoding="utf-8"), output)
    facts = place / _FACTS
    for line in facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []:
        result.add(json.loads(line))
    return result


def _story(test: str) -> str:
    return test.partition("[")[0]


def _problems(phases: list[dict[str, Any]]) -> list[str]:
    if phases[-1]["phase"] != "teardown":
        return ["did not end"]
    failed = [phase for phase in phases if phase["outcome"] == "failed"]
    expected = phases[0]["expected"]
    if expected is None:
        return [f"failed in its {phase['phase']}\n{phase['text']}" for phase in failed]
    if any(phase["outcome"] == "skipped" for phase in phases):
        return []
    error, at = expected
    if not failed:
        return [f"passed, and {error} was expected"]
    found: list[str] = []
    for phase in failed:
        if error not in {phase["error"], *phase["codes"]}:
            found.append(f"{error} was expected\n{phase['text']}")
        elif at is not None and not any(at in line for line in phase["lines"]):
            found.append(f"{error} names no line with {at!r}: {phase['lines']}\n{phase['text']}")
    return found
