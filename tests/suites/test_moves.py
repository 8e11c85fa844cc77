"""The guide for existing suites, after each of its steps, for suites that differ from its own."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.example import Example

MOVES = Path(__file__).parent / "moves"
STEPS = range(1, 6)
# The steps at which the guide says that the suite is red.
RED = {"create_database": {1, 2}}
# The lines that the guide deletes at a step, in the files of the steps before.
DELETED = {
    3: r"\.(?:create|drop)_all\(|psycopg\.connect\(|admin\.execute\(",
    5: r"session\.commit\(\)",
}
SHAPES = sorted(path.name for path in MOVES.iterdir() if path.name != "every")


def delete_lines(project: Path, pattern: str) -> None:
    for file in project.glob("*.py"):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if not re.search(pattern, line)))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_suite_after_a_step(shape: str, step: int, tmp_path: Path) -> None:
    """The files of a step replace those of the steps before. A shape's replace those of all."""
    project = tmp_path / "project"
    for number in range(1, step + 1):
        for name in ("every", shape):
            folder = MOVES / name / str(number)
            if folder.is_dir():
                shutil.copytree(folder, project, dirs_exist_ok=True)
        if number in DELETED:
            delete_lines(project, DELETED[number])
    server = {"ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"]}
    run = Example(project, {}).run(env={} if shape in {"other_product", "tutorial"} else server)
    if step in RED.get(shape, ()):
        run.says("refused: ", "testing.py:")
        assert (run.status > 0, "arena_schema" in run.output) == (True, False)
    else:
        run.expect(passed=3)
    assert not list(project.glob("*.db"))
