"""The first change of CONTRIBUTING.md, made with its code in a copy of the source."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

from tests.scenarios.projects import Results, project

ROOT = Path(__file__).parents[2]
_CODE = re.compile(r"^   ```python\n(.*?)^   ```$", re.MULTILINE | re.DOTALL)
_FEATURE = """
Feature: Dancers
  Scenario: {}
    Given a dancer
    When I GET /dancers
    Then each item is a text
"""


def test_the_first_change_needs_no_other_module(tmp_path: Path) -> None:
    """Its story is red before, and only the new fault proves it after."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    story, function, line = map(dedent, _CODE.findall(page))
    [name] = re.findall(r"def test_(\w+)", story)
    [kind] = re.findall(r'^"(\w+)"', line)

    source = tmp_path / "src"
    shutil.copytree(ROOT / "src" / "pytest_arena", source / "pytest_arena")
    example = replace(project("answers", tmp_path), env={"PYTHONPATH": str(source)})
    files = {"test_hollow.py": "", "test_honest.py": story}
    example = example.with_paths({**files, "dancers.feature": _FEATURE.format(name)})
    before = Results.of(example, "--scenarios=strict")
    assert before.statuses == {name: "HOLLOW"}, before.run.output

    module = source / "pytest_arena" / "scenarios" / "_faults.py"
    above, kinds, below = module.read_text(encoding="utf-8").partition("\nKINDS:")
    below = below.replace("\n}", f"\n{line}}}", 1)
    module.write_text(f"{above}\n{function}{kinds}{below}", encoding="utf-8")
    after = Results.of(example, "--scenarios=strict")
    assert after.statuses == {name: "PROVEN"}, after.run.output
    noticed = after.attempt(name)["sabotage"]["kinds"]
    assert [each for each, is_noticed in noticed.items() if is_noticed] == [kind]
