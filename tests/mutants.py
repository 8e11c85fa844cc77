"""Plant the faults of ``mutants.toml``, one at a time, and say which test finds each.

    python tests/mutants.py          all faults
    python tests/mutants.py NAME…    the faults whose names begin with one of these

Each fault is planted in a copy of the project, so that an interruption leaves nothing behind. Run
it after a change of a package. The exit status is 1 if a fault has survived, and 2 if one cannot be
planted: then correct the list.
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
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = Path("src", "pytest_arena")
# No list of tests takes longer than a third of it.
PATIENCE_SECONDS = 600


class WrongList(Exception):
    """An entry of the list does not fit the source."""


@dataclass(frozen=True)
class Mutant:
    """A fault: a text of a source file that is replaced, and the tests that must find it."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    def survives(self, project: Path) -> bool:
        """Plant the fault in a copy of the project, run its tests, and take the fault out."""
        module = project / SOURCE / self.file
        text = module.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise WrongList(f"{self.file} has {self.old!r} {text.count(self.old)} times")
        module.write_text(text.replace(self.old, self.new), encoding="utf-8")
        try:
            status, output = run_tests(project, self.tests)
        finally:
            module.write_text(text, encoding="utf-8")
        found = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        last_line = output.strip().rpartition("\n")[2]
        if status == pytest_found_nothing:
            raise WrongList(f"no test is selected by: {self.tests}")
        outcome = "SURVIVED" if status == 0 else "red"
        print(f"{outcome}: {self.name}: {(*found, last_line)[0]}", flush=True)
        return status == 0


pytest_found_nothing = 5


def run_tests(project: Path, tests: str) -> tuple[int, str]:
    """Run tests with the source of a copy. Return the exit status and the output."""
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *tests.split()]
    process = subprocess.Popen(
        command,
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
    """Plant the faults of these names. Return the exit status."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    mutants = [Mutant(name, **entry) for name, entry in tomllib.loads(text).items()]
    chosen = [each for each in mutants if each.name.startswith(tuple(names or [""]))]
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        left_out = shutil.ignore_patterns(".git", ".venv*", "__pycache__", "build", "dist")
        shutil.copytree(ROOT, project, ignore=left_out, symlinks=True)
        try:
            for mutant in chosen:
                if mutant.survives(project):
                    survived.append(mutant.name)
        except WrongList as error:
            print(f"{mutant.name}: {error}")
            return 2
    print(f"{len(chosen)} planted, {len(survived)} survived")
    return 1 if survived or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
