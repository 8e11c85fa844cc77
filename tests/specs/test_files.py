"""Are the right files found, and is it told which ones cannot be read?"""

import os
from pathlib import Path

import pytest

from pytest_arena._specs import found, read
from pytest_arena.errors import ScenarioError
from tests.specs.samples import FEATURE, GOOD, SCENARIO, STEPS, fenced, problem


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with specifications of each kind."""
    for path, text in {
        "docs/a.md": fenced("Scenario: a\n  Given x\n"),
        "docs/deep/b.feature": "Feature: B\n  Scenario: b\n    Given x\n",
        "docs/deep/c.feature.md": "# Feature: C\n## Scenario: c\n* Given x\n",
        "docs/plain.md": "# Nothing\n",
        "docs/d.txt": fenced("Scenario: d\n  Given x\n"),
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
        (["docs/d.txt"], "d"),
        (["docs/d.txt", "docs/*.txt"], "d"),
        (["docs/deep/*"], "bc"),
        (["./docs/a.md", "docs/../docs/a.md"], "a"),
    ],
)
def test_patterns_name_files(root: Path, patterns: list[str], names: str) -> None:
    """Folders, globs, files of any ending; each file once, in the order of their paths."""
    said = read(patterns, root)
    assert [one.name[0] for one in said.scenarios] == [*names.replace("e", "S")]
    assert said.problems == ()
    assert list(said.files) == sorted(said.files)
    assert all(one.startswith("docs/") for one in said.files)


def test_paths_may_be_absolute_or_outside(root: Path) -> None:
    """They are told from the root in any case."""
    assert read([str(root / "docs" / "a.md")], root).files == ("docs/a.md",)
    assert read([str(root / "docs")], root / "docs").files[0] == "a.md"
    assert read(["../docs/a.md"], root / "docs").scenarios[0].spec == "a.md"
    assert read(["../a.md"], root / "docs" / "deep").scenarios[0].spec == "../a.md"


def test_a_name_with_brackets_is_a_name(root: Path) -> None:
    """If there is a file of it."""
    (root / "x[1].feature").write_text(GOOD)
    assert read(["x[1].feature"], root).files == ("x[1].feature",)


def test_a_pattern_without_a_file_is_named(root: Path) -> None:
    """Others that have some do not make up for it."""
    said = read(["docs/a.md", "docs/*.feture"], root)
    assert "docs/*.feture" in problem(said).what
    with pytest.raises(ScenarioError, match=r"no file matches 'docs/\*\.feture'"):
        found(said, ["docs/a.md", "docs/*.feture"])


def test_no_scenario_at_all_is_an_error(root: Path) -> None:
    """It says why, if a file has errors."""
    with pytest.raises(ScenarioError, match="no scenario in 1 file"):
        found(read(["docs/plain.md"], root), ["docs/plain.md"])
    (root / "bad.feature").write_text("Feature: f\n  scenario: s\n    Given x\n")
    with pytest.raises(ScenarioError, match=r"bad\.feature:2: expected Scenario:"):
        found(read(["bad.feature"], root), ["bad.feature"])
    found(read(["docs"], root), ["docs"])


def test_a_file_that_is_named_has_to_have_scenarios(root: Path) -> None:
    """One of a folder need not."""
    said = read(["docs", "docs/plain.md"], root)
    assert (problem(said).spec, problem(said).is_error) == ("docs/plain.md", True)


@pytest.mark.parametrize(
    "content, told, line",
    [
        (GOOD.encode() + b"# caf\xe9\n", "byte 0xe9 is no UTF-8", 6),
        (b"\xef\xbb\xbf\n\xff", "byte 0xff is no UTF-8", 2),
        (GOOD.encode("utf-16"), "UTF-16; expected UTF-8", 0),
        (b"PK\x03\x04\x00\x00", "not a text", 0),
        (b"Feature: f\n" + b"#" * 5_000_001, "5.0 MB are more", 0),
    ],
)
def test_a_file_that_is_no_specification(root: Path, content: bytes, told: str, line: int) -> None:
    """An error, with the line where there is one; the others are read."""
    (root / "docs" / "x.feature").write_bytes(content)
    said = read(["docs"], root)
    assert (problem(said).spec, problem(said).line) == ("docs/x.feature", line)
    assert told in problem(said).what
    assert len(said.scenarios) == 3


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(root: Path) -> None:
    """An error that names the reason."""
    (root / "docs" / "a.md").chmod(0)
    assert "cannot be read: permission denied" in problem(read(["docs"], root)).what


def test_a_file_that_cannot_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for whoever may read anything."""

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "cannot be read: permission denied" in problem(read(["docs/a.md"], root)).what


def test_a_folder_that_cannot_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in it is not left out in silence."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    said = read(["docs"], root)
    assert [one.name for one in said.scenarios] == ["a"]
    assert str(problem(said)) == "docs/deep: the folder cannot be read: permission denied"


@pytest.mark.skipif(os.name == "nt", reason="there are no pipes in folders")
def test_a_pipe_is_not_waited_for(root: Path) -> None:
    """Nobody may ever write to it."""
    os.mkfifo(root / "docs" / "pipe.feature")
    assert "not a file" in problem(read(["docs"], root)).what


def test_a_broken_link_is_told(root: Path) -> None:
    """It is a file of the folder that cannot be read."""
    (root / "docs" / "gone.feature").symlink_to(root / "nowhere")
    assert "not a file" in problem(read(["docs"], root)).what


def test_the_same_folder_twice_is_no_double(root: Path) -> None:
    """By whichever pattern."""
    assert read(["docs", "docs/**/*.feature.md", "docs/deep"], root).problems == ()


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
        said = read([pattern], root)
        assert said.problems == ()
        assert {*said.files} <= {*whole, "shared/g.feature"}
    assert read(["docs"], root).files == ("docs/a.md", *whole[1:3], "docs/more/g.feature", whole[3])


def test_a_pattern_that_no_name_can_be(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where names of files are ASCII alone, it is one without a file."""

    def refuse(*_: object, **__: object) -> None:
        raise UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range(128)")

    monkeypatch.setattr("os.walk", refuse)
    assert "no file matches" in problem(read(["**/é.md"], root)).what


def test_the_language_of_texts_that_name_none(root: Path) -> None:
    """In all of them."""
    (root / "fr").mkdir()
    (root / "fr" / "a.feature").write_text("Fonctionnalité: f\n  Scénario: s\n    Soit a\n")
    (root / "fr" / "b.md").write_text(fenced("Scénario: t\n  Quand a\n"))
    (root / "fr" / "c.feature").write_text(f"# language: en\n{GOOD}")
    said = read(["fr"], root, language="fr")
    assert said.problems == ()
    assert [one.steps[0].kind for one in said.scenarios] == ["given", "when", "given"]
    with pytest.raises(ScenarioError, match="'frr' is no language"):
        read(["fr"], root, language="frr")


def test_what_is_read_is_the_same_each_time(root: Path) -> None:
    """And it is plain data."""
    assert read(["docs"], root) == read(["docs"], root)


@pytest.mark.slow
def test_ten_thousand_scenarios_are_read(tmp_path: Path) -> None:
    """In five hundred files, none lost."""
    for number in range(500):
        scenarios = "".join(SCENARIO.replace("Start", f"Start {one}") + STEPS for one in range(20))
        text = FEATURE.replace("Battles", f"Battles {number}") + scenarios
        (tmp_path / f"{number:03}.feature").write_text(text)
    said = read(["."], tmp_path)
    assert (len(said.features), len(said.scenarios), said.problems) == (500, 10_000, ())
