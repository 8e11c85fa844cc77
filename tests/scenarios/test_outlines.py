"""Each row of a Scenario Outline is a scenario."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.projects import Results, project

if TYPE_CHECKING:
    from pathlib import Path


def test_each_row_has_a_status(tmp_path: Path) -> None:
    """A parameter set proves the row that has its values, and a marker may name a row."""
    example = project("outlines", tmp_path)
    results = Results.of(example, "--scenarios=strict", "--scenarios-out=html:page.html")
    results.run.expect(0, passed=5).says("scenarios: 5 of 5 proven")
    assert example.run("--scenarios=strict", "--collect-only", "-q").status == 0
    rows = [(each["name"], each["row"]) for each in results.document["scenarios"]]
    assert rows[1] == ("A path is answered", {"path": "/nothing", "status": "404"})
    assert rows[4] == ("/judges is open", {"Path name": "/judges"})
    page = (results.run.folder / "page.html").read_text(encoding="utf-8")
    assert "Proven for crashes only: 3</span> enough for a Then" in page
    assert (page.count("<article"), page.count("path=/battles, status=200")) == (2, 2)
    assert "When I GET &lt;path&gt;" in page
    assert "| /nothing | 404    |" in page
    assert "</article>\n<pre>Rule: Some paths are open</pre>\n<article>" in page


def test_each_row_has_its_badge(tmp_path: Path) -> None:
    broken = "import json, pytest\n\n@pytest.fixture\ndef broken():\n    json.loads('')\n"
    old = "assert response.status_code == status"
    example = project("outlines", tmp_path).with_paths({"tests/conftest.py": broken})
    example = example.change("tests/test_paths.py", old, f'{old} and path == "/battles"')
    example = example.change(
        "tests/test_paths.py", "test_others(client", "test_others(client, broken"
    )
    run = example.run("--scenarios=strict", "--scenarios-out=html:page.html")
    run.expect(1, passed=3, failed=1, errors=1)
    page = (run.folder / "page.html").read_text(encoding="utf-8")
    rows = re.findall(r"<p>path=(\S+), status.*class=.badge (\S+).>", page)
    assert rows == [("/battles", "crashes-only"), ("/nothing", "failed"), ("/others", "failed")]
    assert "the preparation of the test fails: json.decoder.JSONDecodeError" in page
    assert "(char 0) (tests/conftest.py:5)" in page  # not a line of the library


@pytest.mark.parametrize(
    "old, new, error",
    [
        (
            '@pytest.mark.parametrize("path, status", [("/battles", 200), ("/nothing", 404)])\n',
            "",
            "test_paths: no parameter is called path, status",
        ),
        (
            (
                '"path, status", [("/battles", 200), ("/nothing", 404)])\n'
                "async def test_paths(client, scenario, path, status):"
            ),
            '"path", ["/battles"])\nasync def test_paths(client, scenario, path, status=200):',
            "no parameter is called status",
        ),
        (
            '("/nothing", 404)',
            '("/nothing", 405)',
            "no row of the outline has path=/nothing, status=405",
        ),
    ],
)
def test_a_test_without_a_row_is_refused(tmp_path: Path, old: str, new: str, error: str) -> None:
    """It would prove none of the rows, or all of them."""
    run = project("outlines", tmp_path).change("tests/test_paths.py", old, new).run()
    assert run.status == 4, run.output
    run.says(error, "specs/paths.feature:11  path=/nothing, status=404")


def test_a_row_without_a_test_is_unmapped(tmp_path: Path) -> None:
    example = project("outlines", tmp_path).change(
        "specs/paths.feature",
        "      | /others  | 404    |\n",
        "      | /others  | 404    |\n      | /more    | 404    |\n",
    )
    run = example.run("--scenarios=strict")
    assert run.status == 1
    run.says("UNMAPPED A path is answered [path=/more, status=404] no test names it")
