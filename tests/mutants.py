"""Plant the faults of ``mutants.toml``, one at a time, and say which test finds each.

    python tests/mutants.py          all faults, in twenty minutes
    python tests/mutants.py NAME…    the faults whose names begin with one of these

Each fault is planted in a copy of the project, so that an interruption leaves nothing behind. The
exit status is 1 if a fault has survived, and 2 if one cannot be planted: then correct the list.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".toml")
# What is no part of the project's source.
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")
# The tests of one fault take a tenth of it.
PATIENCE_SECONDS = 600
PASSED, FOUND_NOTHING = 0, 5  # exit statuses of pytest


@dataclass(frozen=True)
class Mutant:
    """A fault: a text of a source file that is replaced, and the tests that must find it."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    def outcome(self, project: Path) -> tuple[str, str]:
        """Plant the fault in a copy of the project, and run its tests. Return a word and why."""
        module = project / "src" / "pytest_arena" / self.file
        text = module.read_text(encoding="utf-8")
        times = text.count(self.old)
        if times != 1:
            return "wrong", f"{self.file} has its text {times} times"
        module.write_text(text.replace(self.old, self.new), encoding="utf-8")
        try:
            status, output = run_tests(project, self.tests)
        finally:
            module.write_text(text, encoding="utf-8")
        last_line = output.strip().rpartition("\n")[2]
        if status == FOUND_NOTHING:
            return "wrong", last_line
        if status == PASSED:
            return "survived", last_line
        found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", output, re.MULTILINE)
        return "red", found[1] if found else last_line


def run_tests(project: Path, tests: str) -> tuple[int, str]:
    """Run tests with the source of a copy. Return the exit status and the output."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *tests.split()],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return 1, f"no end after {PATIENCE_SECONDS} seconds"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, output


def main(names: list[str]) -> int:
    entries = tomllib.loads(LIST.read_text(encoding="utf-8"))
    mutants = [Mutant(name, **entry) for name, entry in entries.items()]
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        shutil.copytree(ROOT, project, ignore=LEFT_OUT)
        for mutant in mutants:
            if mutant.name.startswith(tuple(names or [""])):
                word, why = mutant.outcome(project)
                outcomes[word] += 1
                print(f"{word:8}  {mutant.name}: {why}", flush=True)
    print(", ".join(f"{number} {word}" for word, number in outcomes.items()) or "no such fault")
    if outcomes["wrong"] or not outcomes["red"] + outcomes["survived"]:
        return 2
    return 1 if outcomes["survived"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
