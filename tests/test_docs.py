"""Does every example in the documentation do what its page says?

README.md and each page below docs/ and skills/ is run from top to bottom. `tests.pages` says how a
page is written. The suite's server stands in for the reader's PostgreSQL server,
`postgresql+asyncpg://me@localhost/app`.
"""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests import forks
from tests.pages import (
    FOR_THE_READER,
    PATIENCE_SECONDS,
    PageError,
    Terminal,
    read_blocks,
    read_commands,
    run_page,
)

ROOT = Path(__file__).parent.parent

# A command that no shell is needed for: options of ours before it, plain or quoted words after it.
PLAIN = re.compile(
    r"(?P<options>([A-Z_]+=[\w./-]+ )*)(?P<program>pytest|arena)"
    r"""(?P<words>( ([\w./=:,@-]+|"[\w ./=:,@-]+"))*)"""
)


class Forked(Terminal):
    """One that runs pytest and arena without the start of an interpreter."""

    def run(self, command: str) -> tuple[int, str]:
        """Run a command: its exit status, and its output."""
        if not (plain := PLAIN.fullmatch(command)):
            return super().run(command)
        options = dict(option.split("=", 1) for option in plain["options"].split())
        program = str(Path(sys.executable).with_name(plain["program"]))
        words = [sys.executable, program, *shlex.split(plain["words"])]
        return forks.run(words, self.folder, {**self.environment(), **options}, PATIENCE_SECONDS)


def pages() -> list[Path]:
    """The documentation's pages, and the skill for coding agents."""
    patterns = ("README.md", "docs/**/*.md", "skills/**/*.md")
    return [page for pattern in patterns for page in sorted(ROOT.glob(pattern))]


def on_the_suites_server(text: str) -> str:
    """A page that shows a fault on a server of the reader's: here that is the suite's."""
    own = os.environ["TESTS_POSTGRESQL"].replace("postgresql:", "postgresql+asyncpg:", 1)
    return text.replace("postgresql+asyncpg://me@localhost/app", own)


def name_of(page: Path) -> str:
    """A page's path in the project."""
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "page",
    pages(),
    ids=name_of,
)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    """All files, commands and fragments of the page work in the order in which it shows them."""
    folder = tmp_path / "project"
    folder.mkdir()
    try:
        text = on_the_suites_server(page.read_text(encoding="utf-8"))
        run_page(name_of(page), text, Forked(folder))
    except PageError as error:
        # The page is at fault: a traceback through this file would not help.
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def test_the_readme_runs_something() -> None:
    """A README without a command that is run would prove nothing."""
    for page in ROOT.glob("README.md"):
        blocks = read_blocks(name_of(page), page.read_text(encoding="utf-8"))
        consoles = [block for block in blocks if block.language == "console" and not block.skip]
        commands = [command.text for block in consoles for command in read_commands(block)]
        assert [text for text in commands if not FOR_THE_READER.fullmatch(text)]


def fenced(info: str, text: str) -> str:
    """A block of a planted page."""
    return f"```{info}\n{text}\n```\n"


THREE_LINES = "$ printf 'one\\ntwo 2.5s\\nthree\\n'\n"

RIGHT_PAGES = {
    "a file and a command": fenced('text title="a/b.txt"', "x")
    + fenced("console", "$ cat a/b.txt\nx"),
    "any text": fenced("console", THREE_LINES + "one\ntwo ...s\nthree"),
    "any lines": fenced("console", THREE_LINES + "one\n...\nthree"),
    "shorter rules": fenced(
        "console", "$ echo ======== 1 in 2.50s ========\n===== 1 in ...s ====="
    ),
    "an exit status": fenced("console exit=3", "$ true\n$ exit 3"),
    "commands for the reader": fenced(
        "console", "$ pip install x\n$ python -m venv v\n$ make test"
    ),
    "a fragment": fenced("python", "await client.get('/')") + fenced("toml", "a = 1"),
    "run in the folder": fenced("python title=a.py", "b = 1")
    + fenced("python exec", "import a\na.b"),
    "the suite's Python": fenced(
        "console", f"$ python -c 'import sys; print(sys.prefix)'\n{sys.prefix}"
    ),
    "no options from outside": fenced("console", "$ echo $PYTEST_PLUGINS$CI.\n."),
    "a cache elsewhere": fenced("console", '$ test "$ARENA_CACHE" && ls -A'),
}

WRONG_PAGES = {
    "other output": (
        fenced("console", "$ echo a\nb"),
        "p:1: `echo a` does not write this:\n    b\nIt writes:\n    a",
    ),
    "less output": (fenced("console", "$ true\na"), "It ends too early."),
    "a failure too few": (fenced("console exit=1", "$ true"), "exits with 0, not with 1"),
    "unknown language": (fenced("bash", "ls"), "unknown language 'bash'"),
    "a file outside": (fenced("text title=../a", ""), "no file in the page's folder"),
    "nobody reads it": (fenced("sql", "SELECT 1"), "without a title is read by nobody"),
    "broken Python": (fenced("python", "a b"), "not python: invalid syntax"),
    "an exception": (fenced("python exec", "1 / 0"), "ZeroDivisionError"),
    "an open fence": ("```text\n", "nothing closes"),
}


@pytest.mark.parametrize("text", RIGHT_PAGES.values(), ids=RIGHT_PAGES.keys())
def test_a_right_page_passes(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness accepts what the page says truly."""
    for name in ("PYTEST_PLUGINS", "CI"):
        monkeypatch.setenv(name, "from outside")
    run_page("p", text, Forked(tmp_path))


@pytest.mark.parametrize("text, message", WRONG_PAGES.values(), ids=WRONG_PAGES.keys())
def test_a_wrong_page_fails(text: str, message: str, tmp_path: Path) -> None:
    """The harness finds what is wrong, and says where."""
    with pytest.raises(PageError, match=re.escape(message)) as error:
        run_page("p", text, Forked(tmp_path))
    assert re.match(r"p:\d+: ", str(error.value))
