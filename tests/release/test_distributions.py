"""Are the wheel and the sdist what the package index and its users need, and nothing else?"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from email.parser import Parser
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.release.conftest import ROOT, call

if TYPE_CHECKING:
    from tests.release.conftest import Release

AT_HOME = ".github"  # what only the code's home reads


def test_the_metadata_are_what_the_index_accepts(release: Release, tmp_path: Path) -> None:
    words = ("-m", "twine", "--no-color", "check", "--strict", release.wheel, release.sdist)
    assert call(sys.executable, *words, folder=tmp_path).count("PASSED") == 2


def test_the_wheel_has_the_form_of_one(release: Release, tmp_path: Path) -> None:
    """No file twice, none at the top, no bytecode, no tests."""
    call(Path(sys.executable).with_name("check-wheel-contents"), release.wheel, folder=tmp_path)


def test_the_wheel_holds_the_package_and_nothing_else(release: Release) -> None:
    package = {name.removeprefix("src/") for name in release.files if name.startswith("src/")}
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    folder = f"pytest_arena-{release.version}.dist-info"
    with zipfile.ZipFile(release.wheel) as wheel:
        held = {name for name in wheel.namelist() if not name.endswith("/")}
    assert "pytest_arena/py.typed" in held
    assert held == package | {f"{folder}/{name}" for name in about}


def test_the_sdist_holds_what_builds_and_tests_it(release: Release) -> None:
    """All of HEAD, but for what only the code's home reads; and the metadata."""
    with tarfile.open(release.sdist) as sdist:
        held = {member.name.partition("/")[2] for member in sdist if member.isfile()}
    assert held == {name for name in release.files if not name.startswith(AT_HOME)} | {"PKG-INFO"}


def test_the_sdist_builds_the_same_wheel_as_the_checkout(release: Release, tmp_path: Path) -> None:
    words = ("-m", "build", "--wheel", "--outdir", tmp_path, release.source)
    call(sys.executable, *words, folder=release.source.parent)
    assert (tmp_path / release.wheel.name).read_bytes() == release.wheel.read_bytes()


class Links(HTMLParser):
    """All that a page leads to or shows, and the places on it that have a name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.places: list[str] = []
        self.feed(page)

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in {"href", "src"}]
        self.places += [f"#{value}" for name, value in attrs if name == "id"]


@pytest.fixture
def links(release: Release, tmp_path: Path) -> Links:
    """Those of the page that the index makes of the description."""
    with zipfile.ZipFile(release.wheel) as wheel:
        name = f"pytest_arena-{release.version}.dist-info/METADATA"
        metadata = Parser().parsestr(wheel.read(name).decode())
    page = tmp_path / "page.md"
    page.write_text(str(metadata.get_payload()), encoding="utf-8")
    words = ("-m", "readme_renderer", page, "-o", tmp_path / "page.html")
    call(sys.executable, *words, folder=tmp_path)
    return Links((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_links_on_the_page_of_the_index_lead_to_this_version(
    release: Release, links: Links
) -> None:
    """None is relative, and each that leads to the project leads to a file of it."""
    elsewhere = [link for link in links.found if link not in links.places]
    assert [link for link in elsewhere if not re.match("https?://", link)] == []
    urls = release.project["urls"]
    assert isinstance(urls, dict)
    home = f"{urls['Source']}/blob/v{release.version}/"
    inside = [link.removeprefix(home) for link in elsewhere if link.startswith(home)]
    files = {link.partition("#")[0] for link in inside}
    assert files
    assert [name for name in sorted(files) if not (release.source / name).exists()] == []


def test_a_tag_names_the_version_and_the_changelog_has_it(release: Release) -> None:
    """Where HEAD has a tag, it is released: under that version, with its changes told."""
    tags = call("git", "tag", "--points-at", "HEAD", folder=ROOT).split()
    changelog = (release.source / "CHANGELOG.md").read_text(encoding="utf-8")
    for tag in [tag for tag in tags if re.match(r"v\d", tag)]:
        assert tag == f"v{release.version}"
        assert re.search(rf"^## \[?{re.escape(release.version)}\]? - ", changelog, re.MULTILINE)
