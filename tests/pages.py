r"""A page of the documentation, run from top to bottom in an empty folder of its own.

The words after a fence's backticks say what a block is:

- ` ```python title="test_app.py" ` writes that file; so do toml, ini, yaml, gherkin …
  Another block with the same title is a later version of it.
- ` ```console ` is a terminal: `$ command`, and below it what the command writes. A line `...`
  stands for any lines, `...` in a line for any text, and a rule like `=====` for one of any length.
  Without output only the exit status counts.
  All commands succeed, but for the last one of a block that says so: ` ```console exit=1 `.
- ` ```python ` without a title is compiled, and toml is parsed.
- ` ```text ` is a picture.

`pip install`, `python -m venv`, `make` and `git` are left out, and after a `git clone` the rest of
its block. `<!-- skip: reason -->` before a fence leaves out any other block.

It needs the standard library alone, and so does whoever runs pages of what is installed elsewhere.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent

# A command that takes longer than this hangs.
PATIENCE_SECONDS = 300

LONGER_THAN_A_PAGE = 100_000  # lines: each file of a page is older than its run

# What each language may say after its name. One with `title` alone is there to be a file.
ATTRIBUTES: dict[str, set[str]] = {
    "console": {"exit"},
    **{
        name: {"title"} for name in ("gherkin", "ini", "markdown", "python", "text", "toml", "yaml")
    },
}

FENCE = re.compile(r"(?P<indent>\s*)(?P<marks>`{3,}|~{3,})(?P<info>[^`]*)")
SKIP = re.compile(r"\s*<!--\s*skip: (?P<reason>.+?)\s*-->\s*")

# Commands for the reader's machine. One that goes on after `&&`, `;` or `|` is run all the same.
FOR_THE_READER = re.compile(
    r"((python3? -m )?pip install|python3? -m venv|make|git) [^&;|]*(&& \. \.venv/bin/activate)?"
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
        return PageError(f"{self.place}: {why}")


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, with the output and exit status that the page expects."""

    text: str
    expected: list[str]
    status: int = 0


@dataclass(frozen=True)
class Terminal:
    """Where a page is run: a folder, and the Python whose programs come first there."""

    folder: Path
    python: Path = Path(sys.executable)

    def run(self, command: str) -> tuple[int, str]:
        done = subprocess.run(  # noqa: S602 - as said
            command,
            shell=True,
            cwd=self.folder,
            env={**self.environment(), "PYTHONUTF8": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout

    def environment(self) -> dict[str, str]:
        """A reader's environment: nothing else is set up."""
        kept = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        # Not resolved: in a virtual environment the interpreter is a link to one outside of it.
        return {
            **kept,
            "ARENA_CACHE": str(self.folder.with_name(f"{self.folder.name}-cache")),
            "COLUMNS": "80",
            "NO_COLOR": "1",
            "PATH": f"{self.python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        }


def run_page(name: str, text: str, terminal: Terminal) -> None:
    for block in read_blocks(name, text):
        if block.skip:
            print(f"{block.place}: skipped: {block.skip}")
        elif "title" in block.attributes:
            write_file(block, terminal.folder)
        elif block.language == "console":
            run_console(block, terminal)
        else:
            check_fragment(block)


def read_blocks(name: str, text: str) -> Iterator[Block]:
    lines = enumerate(text.splitlines(), start=1)
    skip = None
    for number, line in lines:
        place = f"{name}:{number}"
        if comment := SKIP.fullmatch(line):
            skip = comment["reason"]
        elif fence := FENCE.fullmatch(line):
            yield block_of(fence, "\n".join(until_closed(fence, lines, place)), place, skip)
            skip = None
        elif "```" in line:
            raise PageError(f"{place}: a fence that is not seen as one: is it inside a quotation?")
        elif skip and line.strip():
            raise PageError(f"{place}: a skip comment with no block after it")


def until_closed(
    fence: re.Match[str], lines: Iterator[tuple[int, str]], place: str
) -> Iterator[str]:
    for _, line in lines:
        if re.fullmatch(rf"\s*{fence['marks']}{fence['marks'][0]}*\s*", line):
            return
        yield line.removeprefix(fence["indent"])
    raise PageError(f"{place}: a fence that nothing closes")


def block_of(fence: re.Match[str], text: str, place: str, skip: str | None) -> Block:
    language, *words = shlex.split(fence["info"]) or [""]
    attributes = {key: value for key, _, value in (word.partition("=") for word in words)}
    if language not in ATTRIBUTES:
        known = ", ".join(sorted(ATTRIBUTES))
        raise PageError(f"{place}: unknown language {language!r}, known are {known}")
    if unknown := attributes.keys() - ATTRIBUTES[language]:
        raise PageError(f"{place}: unknown for {language}: {', '.join(sorted(unknown))}")
    return Block(place, language, attributes, text, skip)


def write_file(block: Block, folder: Path) -> None:
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


def check_fragment(block: Block) -> None:
    if block.language == "text":
        return
    if block.language not in PARSERS:
        raise block.wrong(f"{block.language} without a title is read by nobody")
    parse(block)


def compile_python(text: str) -> object:
    """Compile Python; a fragment may `await` what its page is about."""
    return compile(text, "<page>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


PARSERS: dict[str, Callable[[str], object]] = {"python": compile_python, "toml": tomllib.loads}


def parse(block: Block) -> None:
    try:
        PARSERS[block.language](block.text)
    except (SyntaxError, ValueError) as error:
        raise block.wrong(f"not {block.language}: {error}") from error


def run_console(block: Block, terminal: Terminal) -> None:
    """Run each command of a block, and compare what it writes with what the page says."""
    for command in read_commands(block):
        if not FOR_THE_READER.fullmatch(command.text):
            run_command(block, command, terminal)
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
    return [*commands[:-1], replace(commands[-1], status=int(block.attributes.get("exit", 0)))]


def run_command(block: Block, command: Command, terminal: Terminal) -> None:
    """Run one command of a console."""
    if re.fullmatch(r"cd\b[^&;|]*", command.text):
        raise block.wrong(f"`{command.text}` is forgotten by the next command: join them with &&")
    written = run(block, command.text, terminal, status=command.status)
    expected = trimmed(command.expected)
    if expected and (missing := first_missing(expected, trimmed(written))) is not None:
        raise block.wrong(
            f"`{command.text}` does not write this:\n{shown(missing)}\nIt writes:\n{shown(written)}"
        )


def run(block: Block, command: str, terminal: Terminal, *, status: int) -> list[str]:
    ended, written = terminal.run(command)
    lines = [line.rstrip() for line in written.splitlines()]
    if ended != status:
        raise block.wrong(
            f"`{command}` exits with {ended}, not with {status}. It writes:\n"
            f"{shown(lines)}\nIf that is meant, say ```console exit={ended}"
        )
    return lines


def first_missing(expected: list[str], written: list[str]) -> list[str] | None:
    """The first expected lines that were not written. Between two `...` lines come together."""
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


def same_line(expected: str, written: str) -> bool:
    pattern = ".*".join(map(re.escape, with_short_rules(expected).split("...")))
    return re.fullmatch(pattern, with_short_rules(written)) is not None


def with_short_rules(line: str) -> str:
    """A line whose rules have one length: pytest's fill what a title leaves of the line."""
    return re.sub(r"([=_-])\1{4,}", r"\1\1\1\1\1", line)


def trimmed(lines: list[str]) -> list[str]:
    return "\n".join(lines).strip("\n").split("\n") if any(lines) else []


def shown(lines: list[str]) -> str:
    return indent("\n".join(lines), "    ")
