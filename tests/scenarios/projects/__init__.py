"""Runs the projects of this folder, each of which is a user's suite with a specification."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.example import APP, SEED, Example

if TYPE_CHECKING:
    from tests.example import Run

ROOT = Path(__file__).parent
XDIST = ("-p", "xdist.plugin", "-n", "2")


@dataclass(frozen=True, slots=True)
class Results:
    run: Run
    document: dict[str, Any]

    @classmethod
    def of(cls, example: Example, *args: str) -> Results:
        run = example.run("--scenarios-out=json:out.json", *args)
        path = run.folder / "out.json"
        assert path.exists(), run.output
        return cls(run, json.loads(path.read_text(encoding="utf-8")))

    @property
    def statuses(self) -> dict[str, str]:
        return {each["name"]: each["status"] for each in self.document["scenarios"]}

    def scenario(self, name: str) -> dict[str, Any]:
        [found] = [each for each in self.document["scenarios"] if each["name"] == name]
        return dict(found)

    def reason(self, name: str) -> str:
        return str(self.scenario(name)["reason"])

    def attempt(self, name: str) -> dict[str, Any]:
        [test, *_] = self.scenario(name)["tests"]
        return dict([each for each in self.document["tries"] if each["test"] == test][-1])

    def facts(self, name: str) -> dict[str, Any]:
        return dict(self.attempt(name)["facts"])


def project(name: str, folder: Path) -> Example:
    files = {
        "app.py": (ROOT / "battles" / "app.py").read_text(encoding="utf-8"),
        "dancers.py": APP,
        "seed.py": SEED,
    }
    for path in (ROOT / name).rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            files[path.relative_to(ROOT / name).as_posix()] = path.read_text(encoding="utf-8")
    return Example(folder / name, files)
