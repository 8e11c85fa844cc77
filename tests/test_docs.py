"""Does every example in the documentation do what its page says?

README.md and each page below docs/ and skills/ is run from top to bottom. `tests.pages` says how a
page is written.
"""

import re
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import sqlalchemy

from bench import pictures
from tests import forks
from tests.pages import PATIENCE_SECONDS, PageError, Terminal, run_page

ROOT = Path(__file__).parent.parent

# A command that no shell is needed for: options of ours before it, plain or quoted words after it.
PLAIN = re.compile(
    r"(?P<options>([A-Z_]+=[\w./-]+ )*)(?P<program>pytest|arena)"
    r"""(?P<words>( ([\w./=:,@-]+|"[\w ./=:,@-]+"))*)"""
)


class Forked(Terminal):
    """One that runs pytest and arena without the start of an interpreter."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.outputs: dict[str, str] = {}

    def run(self, command: str) -> tuple[int, str]:
        status, output = self._run(command)
        self.outputs.setdefault(command, output)
        return status, output

    def _run(self, command: str) -> tuple[int, str]:
        if not (plain := PLAIN.fullmatch(command)):
            return super().run(command)
        options = dict(option.split("=", 1) for option in plain["options"].split())
        program = str(Path(sys.executable).with_name(plain["program"]))
        words = [sys.executable, program, *shlex.split(plain["words"])]
        return forks.run(words, self.folder, {**self.environment(), **options}, PATIENCE_SECONDS)


def pages() -> list[Path]:
    patterns = ("README.md", "docs/**/*.md", "skills/**/*.md")
    return [page for pattern in patterns for page in sorted(ROOT.glob(pattern))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    """All files, commands and fragments of the page work in the order in which it shows them."""
    assert re.search(r"\n\n(?!```|[<|#-])", page.read_text(encoding="utf-8")), "no sentence"
    folder = tmp_path / "project"
    folder.mkdir()
    terminal = Forked(folder)
    try:
        run_page(name_of(page), page.read_text(encoding="utf-8"), terminal)
    except PageError as error:
        # The page is at fault: a traceback through this file would not help.
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    for name, picture in pictures.PICTURES.items():
        # SQLAlchemy 2.0 writes other names of columns.
        if picture.page == name_of(page) and sqlalchemy.__version__ >= "2.1":
            check_picture(name, picture.of(terminal.outputs, folder))


def check_picture(name: str, drawn: str) -> None:
    """Compare the words of a picture of this run with those of the file."""
    file = pictures.FOLDER / f"{name}.svg"
    fresh = pictures.words(drawn)
    assert len(fresh) > 20
    assert pictures.words(file.read_text(encoding="utf-8")) == fresh, "python -m bench.pictures"


def test_the_bars_are_the_numbers_of_the_page() -> None:
    for name, picture in pictures.BENCH.items():
        check_picture(name, picture.draw((ROOT / picture.page).read_text(encoding="utf-8")))


def test_each_picture_is_shown_with_a_text_for_who_cannot_see_it() -> None:
    texts = [page.read_text(encoding="utf-8") for page in pages()]
    for name in (*pictures.PICTURES, *pictures.BENCH):
        shown = re.compile(rf"!\[[\w ,:-]{{20,}}\]\([\w./]*pictures/{name}\.svg\)")
        assert any(map(shown.search, texts)), name
        drawn = (pictures.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
        assert ET.fromstring(drawn)[0].text  # noqa: S314 - ours


def fenced(info: str, text: str) -> str:
    return f"```{info}\n{text}\n```\n"


WRONG_PAGES = {
    "other output": (
        fenced("console", "$ echo a\nb"),
        "p:1: `echo a` does not write this:\n    b\nIt writes:\n    a",
    ),
    "a failure too few": (fenced("console exit=1", "$ true"), "exits with 0, not with 1"),
    "unknown language": (fenced("bash", "ls"), "unknown language 'bash'"),
}


@pytest.mark.parametrize("text, message", WRONG_PAGES.values(), ids=WRONG_PAGES.keys())
def test_a_wrong_page_fails(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PageError, match=re.escape(message)) as error:
        run_page("p", text, Forked(tmp_path))
    assert re.match(r"p:\d+: ", str(error.value))


def test_the_map_of_the_code_names_modules_that_exist() -> None:
    """A path of the page is below the package, or beside the path before it."""
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:src/)?((?:_\w+/|scenarios/)?_?\w+\.(?:py|sql))`", page))
    source = ROOT / "src/pytest_arena"
    paths = {path.relative_to(source) for path in source.rglob("*.*")}
    assert named <= {path.as_posix() for path in paths} | {path.name for path in paths}
