"""Is the changelog in the form that it says it follows, and does it know the version?"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
FORMS = ("https://keepachangelog.com/", "https://semver.org/")
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
RELEASED = re.compile(r"(\d+)\.(\d+)\.(\d+)(\S*) - (\d{4}-\d{2}-\d{2})( \[YANKED\])?")
PART = re.compile(r"^(## .+|### .+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """What is told of a version, or of what comes next."""

    title: str
    words: str
    kinds: list[tuple[str, str]]

    @property
    def number(self) -> tuple[int, ...]:
        """The version, to compare."""
        found = RELEASED.fullmatch(self.title)
        return tuple(map(int, found.groups()[:3])) if found else ()

    @property
    def version(self) -> str:
        """The version, as it is written."""
        return self.title.partition(" ")[0]


def read(text: str) -> list[Section]:
    """The sections, from top to bottom."""
    sections: list[Section] = []
    _, *parts = PART.split(text)
    for heading, told in zip(parts[::2], parts[1::2], strict=True):
        title = heading.lstrip("# ").replace("[", "").replace("]", "")
        if heading.startswith("## "):
            sections.append(Section(title, told.strip(), []))
        else:
            sections[-1].kinds.append((title, told))
    return sections


def faults(text: str, version: str) -> Iterator[str]:
    """What is wrong with a changelog, in a project of this version."""
    yield from (f"does not name {form}" for form in FORMS if form not in text)
    first, *released = read(text)
    if first.title != "Unreleased":
        yield f"begins with {first.title}, not with Unreleased"
    for section in released:
        yield from faults_of_title(section)
    for newer, older in pairwise(section for section in released if section.number):
        if newer.number <= older.number:
            yield f"{newer.title} stands above {older.title}"
    for section in (first, *released):
        yield from faults_of_kinds(section, may_be_empty=section is first and bool(released))
    newest = released[0].version if released else None
    if newest != version and not first.kinds:
        yield f"has nothing of {version}, the newest is {newest}"


def faults_of_title(section: Section) -> Iterator[str]:
    """A release has a version and a day."""
    found = RELEASED.fullmatch(section.title)
    try:
        date.fromisoformat(found[5] if found else "")
    except ValueError:
        yield f"{section.title} is no `version - year-month-day`"


def faults_of_kinds(section: Section, *, may_be_empty: bool) -> Iterator[str]:
    """A section has kinds of changes, each once and in their order, each with a list."""
    kinds = [kind for kind, _ in section.kinds]
    if section.words:
        yield f"{section.title} has words outside of {', '.join(KINDS)}"
    if not kinds and not may_be_empty:
        yield f"{section.title} is empty"
    if kinds != [kind for kind in KINDS if kind in kinds]:
        yield f"{section.title} has {', '.join(kinds)}: each may come once, as {', '.join(KINDS)}"
    for kind, told in section.kinds:
        lines = told.strip().splitlines()
        if not lines or not all(line.startswith(("- ", "  ")) for line in lines if line):
            yield f"{section.title}, {kind} is no list"


def test_the_changelog_is_in_form() -> None:
    """And has something to tell of the version in pyproject.toml."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert list(faults((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)) == []


HEAD = f"# Changelog\n\n{FORMS[0]} {FORMS[1]}\n\n"
UNRELEASED = "## [Unreleased]\n\n"
FIRST = "## [0.1.0] - 2026-12-01\n\n### Added\n\n- All.\n  More of it.\n\n### Fixed\n\n- It.\n"


@pytest.mark.parametrize(
    "text, version",
    [
        (HEAD + UNRELEASED + "### Added\n\n- All.\n", "0.1.0"),
        (HEAD + UNRELEASED + FIRST, "0.1.0"),
        (HEAD + UNRELEASED + "### Fixed\n- It.\n" + FIRST, "0.2.0"),
        (HEAD + UNRELEASED + FIRST.replace("0.1.0", "0.10.0") + FIRST, "0.10.0"),
    ],
)
def test_a_right_changelog_has_no_faults(text: str, version: str) -> None:
    """Before the first release, right after it, before the next."""
    assert list(faults(text, version)) == []


@pytest.mark.parametrize(
    "text, fault",
    [
        ("# Changelog\n\n" + UNRELEASED + FIRST, "does not name https://keepachangelog.com/"),
        (HEAD + FIRST, "not with Unreleased"),
        (HEAD + UNRELEASED, "Unreleased is empty"),
        (HEAD + UNRELEASED + "Much.\n" + FIRST, "Unreleased has words outside"),
        (HEAD + UNRELEASED + "### Added\n" + FIRST, "Unreleased, Added is no list"),
        (HEAD + UNRELEASED + "### Added\n\nMuch.\n" + FIRST, "Unreleased, Added is no list"),
        (HEAD + UNRELEASED + "### News\n\n- x\n" + FIRST, "has News: each may"),
        (
            HEAD + UNRELEASED + "### Fixed\n- x\n### Added\n- x\n" + FIRST,
            "has Fixed, Added: each may",
        ),
        (HEAD + UNRELEASED + "### Added\n- x\n### Added\n- x\n" + FIRST, "has Added, Added: each"),
        (HEAD + UNRELEASED + FIRST + "## 0.0.1 - 2026-11-01\n", "0.0.1 - 2026-11-01 is empty"),
        (HEAD + UNRELEASED + FIRST.replace("-12-01", "-13-01"), "is no `version"),
        (HEAD + UNRELEASED + FIRST.replace(" - 2026-12-01", ""), "0.1.0 is no `version"),
        (HEAD + UNRELEASED + FIRST + FIRST, "stands above"),
        (HEAD + UNRELEASED + FIRST.replace("0.1.0", "0.0.9"), "nothing of 0.1.0"),
    ],
)
def test_a_fault_is_found(text: str, fault: str) -> None:
    """By name."""
    assert any(fault in found for found in faults(text, "0.1.0")), list(faults(text, "0.1.0"))
