r"""Does every example in the documentation do what its page says?

README.md and each page below docs/ is run from top to bottom in an empty folder of its own. The
words after a fence's backticks say what a block is:

- ` ```python title="test_app.py" ` writes that file; so do toml, sql, ini, yaml, html, gherkin …
  Another block with the same title is a later version of it.
- ` ```console ` is a terminal: `$ command`, and below it what the command writes. A line `...`
  stands for any lines, `...` in a line for any text, and a rule like `=====` for one of any length.
  Without output only the exit status counts.
  All commands succeed, but for the last one of a block that says so: ` ```console exit=1 `.
- ` ```python ` without a title is compiled, and with `exec` run; toml and json are parsed.
- ` ```text ` and ` ```mermaid ` are pictures.

`pip install`, `python -m venv`, `make` and `git` are left out, and after a `git clone` the rest of
its block. `<!-- skip: reason -->` before a fence leaves out any other block. The PostgreSQL server
of the reader's, `postgresql+asyncpg://me@localhost/app`, is the one that the suite has started.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from textwrap import indent

import pytest

from tests import forks

ROOT = Path(__file__).parent.parent
TRAP = re.compile(r"^\| (\d+) \| .* \| (.*) \|$", re.MULTILINE)

# A command that takes longer than this hangs.
PATIENCE_SECONDS = 120

LONGER_THAN_A_PAGE = 100_000  # lines: each file of a page is older than its run

# What each language may say after its name. One with `title` alone is there to be a file.
ATTRIBUTES: dict[str, set[str]] = {
    "console": {"exit"},
    "mermaid": set(),
    "python": {"title", "exec"},
    **{name: {"title"} for name in ("css", "gherkin", "html", "ini", "jinja", "json", "mako")},
    **{name: {"title"} for name in ("markdown", "sql", "text", "toml", "typescript", "yaml")},
}

FENCE = re.compile(r"(?P<indent>\s*)(?P<marks>`{3,}|~{3,})(?P<info>[^`]*)")
SKIP = re.compile(r"\s*<!--\s*skip\b:?\s*(?P<reason>.*?)\s*-->\s*")

# Commands for the reader's machine. One that goes on after `&&`, `;` or `|` is run all the same.
FOR_THE_READER = re.compile(
    r"((python3? -m )?pip install|python3? -m venv|make|git) [^&;|]*(&& \. \.venv/bin/activate)?"
)

# A command that no shell is needed for: options of ours before it, plain or quoted words after it.
PLAIN = re.compile(
    r"(?P<options>([A-Z_]+=[\w./-]+ )*)(?P<program>pytest|arena)"
    r"""(?P<words>( ([\w./=:,@-]+|"[\w ./=:,@-]+"))*)"""
)

# What would make a command here write something else than at the reader's: options from outside,
# colours, and `CI`, under which pytest prints differences in full.
FOREIGN = re.compile(r"ARENA_|PYTEST_|PYTHON|DATABASE_URL$|(PY|FORCE)_COLORS?$|CI$|BUILD_NUMBER$")


class PageError(Exception):
    """A page is written wrong, or does not do what it says."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: where it stands, what its fence says, what it holds."""

    place: str
    language: str
    attributes: dict[str, str]
    text: str
    skip: str | None

    def wrong(self, why: str) -> PageError:
        """The error for this block."""
        return PageError(f"{self.place}: {why}")


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, with the output and exit status that the page expects."""

    text: str
    expected: list[str]
    status: int = 0


def run_page(name: str, text: str, folder: Path) -> None:
    """Do all that a page says, from top to bottom."""
    for block in read_blocks(name, text):
        if block.skip:
            print(f"{block.place}: skipped: {block.skip}")
        elif "title" in block.attributes:
            write_file(block, folder)
        elif block.language == "console":
            run_console(block, folder)
        else:
            check_fragment(block, folder)


def read_blocks(name: str, text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = enumerate(text.splitlines(), start=1)
    skip = None
    for number, line in lines:
        place = f"{name}:{number}"
        if comment := SKIP.fullmatch(line):
            skip = reason_of(comment, place)
        elif fence := FENCE.fullmatch(line):
            inside = "\n".join(until_closed(fence, lines, place))
            yield block_of(fence, inside, place, skip)
            skip = None
        elif "```" in line:
            raise PageError(f"{place}: a fence that is not seen as one: is it inside a quotation?")
        elif skip and line.strip():
            raise PageError(f"{place}: a skip comment with no block after it")


def reason_of(comment: re.Match[str], place: str) -> str:
    """The reason that a skip comment gives."""
    if not comment["reason"]:
        raise PageError(f"{place}: a skip comment without a reason")
    return comment["reason"]


def until_closed(
    fence: re.Match[str], lines: Iterator[tuple[int, str]], place: str
) -> Iterator[str]:
    """The lines of a block, up to the fence that closes it."""
    for _, line in lines:
        if re.fullmatch(rf"\s*{fence['marks']}{fence['marks'][0]}*\s*", line):
            return
        yield line.removeprefix(fence["indent"])
    raise PageError(f"{place}: a fence that nothing closes")


def block_of(fence: re.Match[str], text: str, place: str, skip: str | None) -> Block:
    """A block, once the words of its fence are known ones."""
    language, *words = shlex.split(fence["info"]) or [""]
    attributes = {key: value for key, _, value in (word.partition("=") for word in words)}
    if language not in ATTRIBUTES:
        known = ", ".join(sorted(ATTRIBUTES))
        raise PageError(f"{place}: unknown language {language!r}, known are {known}")
    if unknown := attributes.keys() - ATTRIBUTES[language]:
        raise PageError(f"{place}: unknown for {language}: {', '.join(sorted(unknown))}")
    return Block(place, language, attributes, text, skip)


def write_file(block: Block, folder: Path) -> None:
    """Write a block as the file that its title names."""
    target = (folder / block.attributes["title"]).resolve()
    if not target.is_relative_to(folder.resolve()) or target == folder.resolve():
        raise block.wrong(f"{block.attributes['title']!r} is no file in the page's folder")
    if block.language in PARSERS:
        parse(block)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(block.text + "\n", encoding="utf-8")
    # Bytecode knows its source by a time in whole seconds: two versions must not have the same.
    line = int(block.place.rpartition(":")[2])
    os.utime(target, (0, time.time() - LONGER_THAN_A_PAGE + line))


def check_fragment(block: Block, folder: Path) -> None:
    """Read a block that is no file, and run it if it says `exec`."""
    if block.language in {"mermaid", "text"}:
        return
    if block.language not in PARSERS:
        raise block.wrong(f"{block.language} without a title is read by nobody")
    parse(block)
    if "exec" in block.attributes:
        run(block, shlex.join([sys.executable, "-c", block.text]), folder, status=0)


def compile_python(text: str) -> object:
    """Compile Python; a fragment may `await` what its page is about."""
    return compile(text, "<page>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "python": compile_python,
    "toml": tomllib.loads,
}


def parse(block: Block) -> None:
    """Make sure that a block is what its language says."""
    try:
        PARSERS[block.language](block.text)
    except (SyntaxError, ValueError) as error:
        raise block.wrong(f"not {block.language}: {error}") from error


def run_console(block: Block, folder: Path) -> None:
    """Run each command of a block, and compare what it writes with what the page says."""
    for command in read_commands(block):
        if not FOR_THE_READER.fullmatch(command.text):
            run_command(block, command, folder)
            continue
        print(f"{block.place}: skipped: {command.text}")
        if command.text.startswith("git clone"):
            # What follows happens inside the clone.
            return


def read_commands(block: Block) -> list[Command]:
    """The commands of a console block; the exit status of its fence belongs to the last one."""
    commands: list[Command] = []
    for line in block.text.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            commands.append(Command(line.removeprefix("$ ").strip(), expected=[]))
        elif commands:
            commands[-1].expected.append(line.rstrip())
        else:
            break
    if not commands:
        raise block.wrong("a console begins with `$ command`")
    status = int(block.attributes.get("exit", 0))
    return [*commands[:-1], replace(commands[-1], status=status)]


def run_command(block: Block, command: Command, folder: Path) -> None:
    """Run one command of a console."""
    if re.fullmatch(r"cd\b[^&;|]*", command.text):
        raise block.wrong(f"`{command.text}` is forgotten by the next command: join them with &&")
    written = run(block, command.text, folder, status=command.status)
    expected = trimmed(command.expected)
    if expected and (missing := first_missing(expected, trimmed(written))) is not None:
        raise block.wrong(
            f"`{command.text}` does not write this:\n{shown(missing)}\n"
            f"It writes:\n{shown(written)}\n{difference(missing, written)}"
        )


def run(block: Block, command: str, folder: Path, *, status: int) -> list[str]:
    """Run a command in the page's folder, and return the lines it writes."""
    own = environment(folder)
    if plain := PLAIN.fullmatch(command):
        ended, written = in_a_fork(plain, folder, own)
    else:
        ended, written = in_a_shell(command, folder, own)
    lines = [line.rstrip() for line in written.splitlines()]
    if ended != status:
        raise block.wrong(
            f"`{command}` exits with {ended}, not with {status}. It writes:\n"
            f"{shown(lines)}\nIf that is meant, say ```console exit={ended}"
        )
    return lines


def in_a_fork(plain: re.Match[str], folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run pytest or arena without the start of an interpreter: its exit status, and its output."""
    options = dict(option.split("=", 1) for option in plain["options"].split())
    program = str(Path(sys.executable).with_name(plain["program"]))
    command = [sys.executable, program, *shlex.split(plain["words"])]
    return forks.run(command, folder, {**env, **options}, PATIENCE_SECONDS)


def in_a_shell(command: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run a command as a reader's shell does, pipes and all: its exit status, and its output."""
    done = subprocess.run(  # noqa: S602 - as said
        command,
        shell=True,
        cwd=folder,
        env={**env, "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


def environment(folder: Path) -> dict[str, str]:
    """A reader's environment: this suite's Python comes first, nothing else is set up."""
    kept = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
    # Not resolved: in a virtual environment the interpreter is a link to one outside of it.
    programs = Path(sys.executable).parent
    return {
        **kept,
        "ARENA_CACHE": str(folder.with_name(f"{folder.name}-cache")),
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "PATH": f"{programs}{os.pathsep}{kept.get('PATH', os.defpath)}",
    }


def first_missing(expected: list[str], written: list[str]) -> list[str] | None:
    """The first expected lines that were not written, or None when all were.

    Between two `...` stand lines that come together. The first group begins the output, the last
    one ends it, and each of the others is looked for behind the one before it.
    """
    *groups, last = grouped(expected)
    rest = written
    for number, group in enumerate(groups):
        starts = range(len(rest) + 1) if number else range(1)
        start = next((start for start in starts if stand_at(group, rest, start)), None)
        if start is None:
            return group
        rest = rest[start + len(group) :]
    start = len(rest) - len(last)
    has_room = start >= 0 if groups else start == 0
    return None if has_room and stand_at(last, rest, start) else last


def grouped(expected: list[str]) -> list[list[str]]:
    """The expected lines, parted where `...` stands for any lines."""
    groups: list[list[str]] = [[]]
    for line in expected:
        if line.strip() == "...":
            groups.append([])
        else:
            groups[-1].append(line)
    return groups


def stand_at(group: list[str], written: list[str], start: int) -> bool:
    """Whether these lines stand in the output from this line on."""
    there = written[start : start + len(group)]
    return len(there) == len(group) and all(map(same_line, group, there))


def difference(group: list[str], written: list[str]) -> str:
    """What parts the expected lines from the written ones, where they agree the longest."""
    start = max(range(len(written) + 1), key=lambda start: agreement(group, written[start:]))
    agreed = agreement(group, written[start:])
    if agreed == len(group):
        return "All of these lines are there, but not in this place."
    there = written[start + agreed : start + agreed + 1]
    return f"Expected {group[agreed]!r}, found {there[0]!r}" if there else "It ends too early."


def agreement(group: list[str], written: list[str]) -> int:
    """How many lines are the expected ones, counted from the first."""
    pairs = zip(group, written, strict=False)
    return sum(1 for _ in takewhile(lambda pair: same_line(*pair), pairs))


def same_line(expected: str, written: str) -> bool:
    """Whether a line is the expected one, with any text in place of `...`."""
    pattern = ".*".join(map(re.escape, with_short_rules(expected).split("...")))
    return re.fullmatch(pattern, with_short_rules(written)) is not None


def with_short_rules(line: str) -> str:
    """A line whose rules have one length: pytest's fill what a title leaves of the line."""
    return re.sub(r"([=_-])\1{4,}", r"\1\1\1\1\1", line)


def trimmed(lines: list[str]) -> list[str]:
    """Lines without the blank ones around them."""
    return "\n".join(lines).strip("\n").split("\n") if any(lines) else []


def shown(lines: list[str]) -> str:
    """Lines as part of a message."""
    return indent("\n".join(lines), "    ")


def pages() -> list[Path]:
    """The documentation's pages."""
    return [*ROOT.glob("README.md"), *sorted(ROOT.glob("docs/**/*.md"))]


def on_the_suites_server(text: str) -> str:
    """A page that shows a fault on a server of the reader's: here that is the suite's."""
    own = os.environ["TESTS_POSTGRESQL"].replace("postgresql:", "postgresql+asyncpg:", 1)
    return text.replace("postgresql+asyncpg://me@localhost/app", own)


def name_of(page: Path) -> str:
    """A page's path in the project."""
    return page.relative_to(ROOT).as_posix()


# Each starts pytest many times over; `make test-full` runs them.
LONG_PAGES = {
    f"docs/how-to/{name}.md"
    for name in (
        "alembic",
        "changes",
        "existing-suite",
        "logins",
        "look-at-a-failed-test",
        "other-plugins",
        "settings-and-apps",
        "several-databases",
        "test-a-variant",
        "wide-fixtures",
    )
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if name_of(page) in LONG_PAGES else ())
        for page in pages()
    ],
    ids=name_of,
)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    """All files, commands and fragments of the page work in the order in which it shows them."""
    folder = tmp_path / "project"
    folder.mkdir()
    try:
        run_page(name_of(page), on_the_suites_server(page.read_text(encoding="utf-8")), folder)
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
    "prose alone": "No block, `...` and a [link](x).\n",
    "a file and a command": fenced('text title="a/b.txt"', "x")
    + fenced("console", "$ cat a/b.txt\nx"),
    "a later version": fenced("sql title=a", "1")
    + fenced("sql title=a", "2")
    + fenced("console", "$ cat a\n2"),
    "no output shown": fenced("console", "$ echo anything"),
    "several commands": fenced("console", "$ echo a\na\n\n$ echo b\nb"),
    "a long command": fenced("console", "$ echo a \\\n  b\na b"),
    "any text": fenced("console", THREE_LINES + "one\ntwo ...s\nthree"),
    "any lines": fenced("console", THREE_LINES + "one\n...\nthree"),
    "shorter rules": fenced(
        "console", "$ echo ======== 1 in 2.50s ========\n===== 1 in ...s ====="
    ),
    "no lines are any lines": fenced(
        "console", THREE_LINES + "one\n...\ntwo 2.5s\n...\nthree\n..."
    ),
    "an exit status": fenced("console exit=3", "$ true\n$ exit 3"),
    "commands for the reader": fenced(
        "console", "$ pip install x\n$ python -m venv v\n$ make test"
    ),
    "a clone": fenced("console", "$ git clone x\n$ cd x\n$ false"),
    "a skip": "<!-- skip: needs a server -->\n\n" + fenced("console", "$ false"),
    "a fragment": fenced("python", "await client.get('/')") + fenced("toml", "a = 1"),
    "run in the folder": fenced("python title=a.py", "b = 1")
    + fenced("python exec", "import a\na.b"),
    "inside a list": "- item\n\n" + indent(fenced("console", "$ echo a\na"), "  "),
    "a longer fence": "````text\n```\n````\n",
    "the suite's Python": fenced(
        "console", f"$ python -c 'import sys; print(sys.prefix)'\n{sys.prefix}"
    ),
    "no options from outside": fenced("console", "$ echo $PYTEST_PLUGINS$CI$ARENA_APP.\n."),
    "a cache elsewhere": fenced("console", '$ test "$ARENA_CACHE" && ls -A'),
}

WRONG_PAGES = {
    "other output": (
        fenced("console", "$ echo a\nb"),
        "p:1: `echo a` does not write this:\n    b\nIt writes:\n    a",
    ),
    "more output": (fenced("console", THREE_LINES + "one\ntwo 2.5s"), "not in this place"),
    "a line amid": (
        fenced("console", THREE_LINES + "one\n2\nthree"),
        "Expected '2', found 'two 2.5s'",
    ),
    "less output": (fenced("console", "$ true\na"), "It ends too early."),
    "other order": (
        fenced("console", THREE_LINES + "...\nthree\n...\none\n..."),
        "write this:\n    one\n",
    ),
    "other end": (fenced("console", THREE_LINES + "...\ntwo ..."), "write this:\n    two ..."),
    "one line for two": (fenced("console", "$ echo a\na\n...\na"), "write this:\n    a"),
    "a missing file": (fenced("console", "$ cat a.txt"), "exits with 1, not with 0"),
    "a failure too few": (fenced("console exit=1", "$ true"), "exits with 0, not with 1"),
    "a failure amid": (fenced("console exit=1", "$ false\n$ false"), "exits with 1, not with 0"),
    "more than an install": (fenced("console", "$ pip install x && false"), "exits with"),
    "a lost folder": (fenced("console", "$ cd x\n$ ls"), "`cd x` is forgotten"),
    "no command": (fenced("console", "output"), "begins with `$ command`"),
    "a skip without reason": (
        "<!-- skip: -->\n" + fenced("console", "$ false"),
        "without a reason",
    ),
    "a bare skip": ("<!-- skip -->\n" + fenced("console", "$ false"), "without a reason"),
    "a skip before prose": (
        "<!-- skip: a b -->\nProse.\n" + fenced("text", ""),
        "no block after it",
    ),
    "unknown language": (fenced("bash", "ls"), "unknown language 'bash'"),
    "no language": (fenced("", "ls"), "unknown language ''"),
    "unknown attribute": (fenced("python tilte=a.py", ""), "unknown for python: tilte"),
    "a file outside": (fenced("text title=../a", ""), "no file in the page's folder"),
    "nobody reads it": (fenced("sql", "SELECT 1"), "without a title is read by nobody"),
    "broken Python": (fenced("python", "a b"), "not python: invalid syntax"),
    "broken file": (fenced("toml title=a.toml", "a"), "not toml"),
    "an exception": (fenced("python exec", "1 / 0"), "ZeroDivisionError"),
    "an open fence": ("```text\n", "nothing closes"),
    "in a quotation": ("> ```console\n> $ false\n> ```\n", "inside a quotation"),
}


@pytest.mark.parametrize("text", RIGHT_PAGES.values(), ids=RIGHT_PAGES.keys())
def test_a_right_page_passes(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness accepts what the page says truly."""
    for name in ("PYTEST_PLUGINS", "CI", "ARENA_APP"):
        monkeypatch.setenv(name, "from outside")
    run_page("p", text, tmp_path)


@pytest.mark.parametrize("text, message", WRONG_PAGES.values(), ids=WRONG_PAGES.keys())
def test_a_wrong_page_fails(text: str, message: str, tmp_path: Path) -> None:
    """The harness finds what is wrong, and says where."""
    with pytest.raises(PageError, match=re.escape(message)) as error:
        run_page("p", text, tmp_path)
    assert re.match(r"p:\d+: ", str(error.value))


def test_the_page_of_known_traps_is_what_the_tests_say() -> None:
    """A trap that is called tested has a test of its number, and each number has its trap."""
    page = (ROOT / "docs/explanation/pitfalls.md").read_text()
    traps = {int(number): answer for number, answer in re.findall(TRAP, page)}
    sources = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    names = re.findall(r"_pitfall((?:_\d{3})+)\b", "\n".join(sources))
    numbers = {int(number) for name in names for number in name.split("_")[1:]}
    assert {
        number for number, answer in traps.items() if answer.startswith("tested")
    } - numbers == set()
    assert numbers - traps.keys() == set()
