"""Are the right files found, and is it told which ones cannot be read?"""

import os
from pathlib import Path

import pytest

from tests.specs.samples import FEATURE, GOOD, SCENARIO, STEPS, fenced, listed, problem


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with specifications of each kind."""
    for path, text in {
        "docs/a.md": fenced("Scenario: a\n  Given x\n"),
        "docs/deep/b.feature": "Feature: B\n  Scenario: b\n    Given x\n",
        "docs/deep/c.feature.md": "# Feature: C\n## Scenario: c\n* Given x\n",
        "docs/plain.md": "# Nothing\n",
        "docs/d.text": fenced("Scenario: d\n  Given x\n"),
        "docs/node_modules/e.feature": GOOD,
        "docs/.hidden/f.feature": GOOD,
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "patterns, names",
    [
        (["docs"], "abc"),
        (["."], "abc"),
        (["docs/deep", "docs"], "abc"),
        (["docs/*.md"], "a"),
        (["docs/**/*.feature"], "b"),
        (["docs/**"], "adbc"),
        (["docs/**/deep/*"], "bc"),
        (["docs/node_modules/*"], "e"),
        (["docs/d.text"], "d"),
        (["docs/d.text", "docs/*.text"], "d"),
        (["docs/deep/*"], "bc"),
        (["./docs/a.md", "docs/../docs/a.md"], "a"),
    ],
)
def test_patterns_name_files(root: Path, patterns: list[str], names: str) -> None:
    """Folders, globs, files of any ending; each file once, in the order of their paths."""
    said = listed(root, *patterns)
    assert [one.name[0] for one in said.scenarios] == [*names.replace("e", "S")]
    assert said.problems == ()
    assert list(said.files) == sorted(said.files)
    assert all(one.startswith("docs/") for one in said.files)


def test_a_scenario_in_a_file_that_is_not_read_is_named(root: Path) -> None:
    """Its ending is another, or the pattern names one folder only; a named file is read."""
    for ending in ("rst", "feature.txt", "gherkin"):
        (root / "docs" / f"g.{ending}").write_text("Text\n\n  Scenario: g\n    Given x\n")
    (root / "docs" / "h.txt").write_text("No such Scenario: here\n")
    said = listed(root, "docs")
    what = "the scenario is not read: the file does not end in .feature or .md"
    assert {(one.spec, one.line, one.what) for one in said.problems} == {
        (f"docs/g.{ending}", 3, what) for ending in ("feature.txt", "gherkin", "rst")
    }
    assert not any(one.is_error for one in said.problems)
    read = listed(root, "docs", "docs/g.rst").problems
    assert sorted(one.spec for one in read if "is not read" in one.what) == [
        "docs/g.feature.txt",
        "docs/g.gherkin",
    ]
    (root / "docs" / "i.feature").write_text(GOOD)
    [one] = listed(root, "docs/*.feature").problems
    assert one.spec == "docs/deep/b.feature"
    assert one.what == "the file is not read: docs/*.feature matches no file in a subfolder"
    assert one.hint == "arena_specs = docs/**/*.feature"
    assert listed(root, "docs/*.feature", "docs/deep").problems == ()


def test_paths_may_be_absolute_or_outside(root: Path) -> None:
    """They are told from the root in any case."""
    assert listed(root, str(root / "docs" / "a.md")).files == ("docs/a.md",)
    assert listed(root / "docs", str(root / "docs")).files[0] == "a.md"
    assert listed(root / "docs", "../docs/a.md").scenarios[0].spec == "a.md"
    assert listed(root / "docs" / "deep", "../a.md").scenarios[0].spec == "../a.md"


def test_a_name_with_brackets_is_a_name(root: Path) -> None:
    """If there is a file of it."""
    (root / "x[1].feature").write_text(GOOD)
    assert listed(root, "x[1].feature").files == ("x[1].feature",)


def test_a_pattern_without_a_file_is_named(root: Path) -> None:
    """Others that have some do not make up for it."""
    said = listed(root, "docs/a.md", "docs/*.feture")
    assert "docs/*.feture" in problem(said).what
    assert said.status == 1
    assert "no file matches 'docs/*.feture'" in said.errors


def test_no_scenario_at_all_is_an_error(root: Path) -> None:
    """It says why, if a file has errors."""
    empty = listed(root, "docs/plain.md")
    assert empty.status == 1
    assert "no scenario in 1 file" in empty.errors
    (root / "bad.feature").write_text("Feature: f\n  scenario: s\n    Given x\n")
    bad = listed(root, "bad.feature")
    assert bad.status == 1
    assert "bad.feature:2: expected Scenario:" in bad.errors
    assert listed(root, "docs").status == 0


@pytest.mark.parametrize(
    "name, text",
    [
        ("shop.rst", "Shop\n====\n\n.. code-block:: gherkin\n\n   Scenario: a\n     Given b\n"),
        ("shop.adoc", "[source,gherkin]\n----\nScenario: a\n  Given b\n----\n"),
        ("shop.rst", "Shop\n====\n"),
    ],
)
def test_the_advice_for_another_markup_is_not_of_markdown(root: Path, name: str, text: str) -> None:
    """A fence of Markdown in RST would be read, and would break the page."""
    (root / name).write_text(text)
    said = listed(root, name)
    told = [each for each in said.problems if each.spec == name]
    assert len(told) == 1
    assert "fence" not in told[0].what
    assert told[0].hint == "move the scenarios to a .feature file, and include it here"
    assert "in a .feature file, or in Markdown" in said.errors


def test_a_file_that_is_named_has_to_have_scenarios(root: Path) -> None:
    """One of a folder need not."""
    said = listed(root, "docs", "docs/plain.md")
    assert (problem(said).spec, problem(said).is_error) == ("docs/plain.md", True)


@pytest.mark.parametrize(
    "content, told, line",
    [
        (GOOD.encode() + b"# caf\xe9\n", "byte 0xe9 is not valid UTF-8", 6),
        (b"\xef\xbb\xbf\n\xff", "byte 0xff is not valid UTF-8", 2),
        (GOOD.encode("utf-16"), "is not valid UTF-8", 1),
        (b"PK\x03\x04\x00\x00", "not a text", 0),
        (
            b"Feature: f\n" + b"#" * 5_000_001,
            "has 5.0 MB. pytest-arena reads specifications of at most 5 MB",
            0,
        ),
    ],
)
def test_a_file_that_is_no_specification(root: Path, content: bytes, told: str, line: int) -> None:
    """An error, with the line where there is one; the others are read."""
    (root / "docs" / "x.feature").write_bytes(content)
    said = listed(root, "docs")
    assert (problem(said).spec, problem(said).line) == ("docs/x.feature", line)
    assert told in problem(said).what
    assert len(said.scenarios) == 3


def test_a_file_that_cannot_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that names the reason."""

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "cannot be read: permission denied" in listed(root, "docs/a.md").problems[-1].what


def test_a_folder_that_cannot_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in it is not left out in silence."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    said = listed(root, "docs")
    assert [one.name for one in said.scenarios] == ["a"]
    assert problem(said).spec == "docs/deep"
    assert problem(said).what == "the folder cannot be read: permission denied"


@pytest.mark.skipif(os.name == "nt", reason="there are no pipes in folders")
def test_a_pipe_is_not_waited_for(root: Path) -> None:
    """Nobody may ever write to it."""
    os.mkfifo(root / "docs" / "pipe.feature")
    assert "not a file" in problem(listed(root, "docs")).what


def test_a_broken_link_is_told(root: Path) -> None:
    """It is a file of the folder that cannot be read."""
    (root / "docs" / "gone.feature").symlink_to(root / "nowhere")
    assert "not a file" in problem(listed(root, "docs")).what


def test_the_same_folder_twice_is_no_double(root: Path) -> None:
    """By whichever pattern."""
    assert listed(root, "docs", "docs/**/*.feature.md", "docs/deep").problems == ()


def test_links_that_lead_in_circles_end(root: Path) -> None:
    """Each file once, by its own path; ``**`` of the library would double with each link."""
    shared = root / "shared"
    shared.mkdir()
    (shared / "g.feature").write_text(GOOD.replace("Battles", "G"))
    for number in range(12):
        (root / "docs" / f"up{number}").symlink_to(root)
        (shared / f"other{number}").symlink_to(root / "docs")
    (root / "docs" / "more").symlink_to(shared)
    (root / "docs" / "again.md").symlink_to(root / "docs" / "a.md")
    whole = ("docs/a.md", "docs/deep/b.feature", "docs/deep/c.feature.md", "docs/plain.md")
    for pattern in (".", "**/*.md", "**/*.feature"):
        said = listed(root, pattern)
        assert said.problems == ()
        assert {*said.files} <= {*whole, "shared/g.feature"}
    assert listed(root, "docs").files == ("docs/a.md", *whole[1:3], "docs/more/g.feature", whole[3])


def test_a_pattern_that_no_name_can_be(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where names of files are ASCII alone, it is one without a file."""

    def refuse(*_: object, **__: object) -> None:
        raise UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range(128)")

    monkeypatch.setattr("os.walk", refuse)
    assert "no file matches" in problem(listed(root, "**/é.md")).what


def test_what_is_read_is_the_same_each_time(root: Path) -> None:
    """And it is plain data."""
    assert listed(root, "docs") == listed(root, "docs")


@pytest.mark.slow
def test_ten_thousand_scenarios_are_read(tmp_path: Path) -> None:
    """In five hundred files, none lost."""
    for number in range(500):
        scenarios = "".join(SCENARIO.replace("Start", f"Start {one}") + STEPS for one in range(20))
        text = FEATURE.replace("Battles", f"Battles {number}") + scenarios
        (tmp_path / f"{number:03}.feature").write_text(text)
    said = listed(tmp_path, ".")
    assert (len(said.files), len(said.scenarios), said.problems) == (500, 10_000, ())
