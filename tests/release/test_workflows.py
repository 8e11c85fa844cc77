"""Are the workflows of the code's home in their form, and do they give no more rights than needed?

They run nowhere but there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.release.conftest import ROOT, call, supported

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TOOLS = Path(sys.executable).parent


def test_their_form_is_right() -> None:
    others = [ROOT / ".github" / "dependabot.yml"]
    for kind, files in {"github-workflows": WORKFLOWS, "dependabot": others}.items():
        words = ("--builtin-schema", f"vendor.{kind}", *files)
        call(TOOLS / "check-jsonschema", *words, folder=ROOT)


def test_they_give_nobody_what_is_not_needed() -> None:
    """Rights, secrets, code of others that may change, words of strangers in a shell."""
    call(TOOLS / "zizmor", "--offline", "--no-progress", "--persona=pedantic", ".", folder=ROOT)


def test_each_supported_python_is_tested() -> None:
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    (versions,) = set(re.findall(r"python: (\[.*\])", text))
    assert re.findall(r"3\.\d+", versions) == supported()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_what_they_call_of_the_makefile_is_there(workflow: Path) -> None:
    """A renamed target would be noticed months later."""
    called = set(re.findall(r"\bmake ([\w.-]+)", workflow.read_text(encoding="utf-8")))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert called
    assert called <= set(re.findall(r"^([\w.-]+):", makefile, re.MULTILINE))
