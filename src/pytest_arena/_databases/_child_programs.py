"""Recognizes the programs that a child process runs."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from pytest_arena._config._supported import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_arena._values import Child

_SHELLS = {"sh", "ash", "bash", "dash", "ksh", "zsh"}
# Programs that run the command in their arguments, some of them on another machine.
_WRAPPERS = {
    *("env", "exec", "nice", "nohup", "runuser", "setsid", "sudo", "su", "time"),
    *("timeout", "xargs", "docker", "docker-compose", "kubectl", "podman", "ssh"),
    *("hatch", "pdm", "pipenv", "poetry", "uv"),
}
_KEYWORDS = {"!", "do", "elif", "else", "if", "then", "until", "while", "{"}
_OPERATORS = set("();|&")
_REDIRECTIONS = set("<>&")
# Programs that run commands of a file of the project.
_BUILDERS = {"make", "gmake", "just", "task", "rake", "npm", "tox", "nox"}
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*w?")
_START = 200  # bytes: pip writes long paths of interpreters into the second line
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True, slots=True)
class ChildProgram:
    """A program that a child process runs."""

    program: str  # as the command line names it
    words: tuple[str, ...]  # its arguments
    variables: Mapping[str, str]
    folder: str

    @property
    def name(self) -> str:
        """The program's name: psql for /usr/bin/psql."""
        return _name(self.program)

    @property
    def is_client(self) -> bool:
        """Whether the program connects to a database by its arguments."""
        return self.name in CLIENTS

    @property
    def _is_python(self) -> bool:
        """Whether it is a Python interpreter, or a script that names one in its first lines."""
        if _PYTHON.fullmatch(self.name):
            return True
        file = which(self.program, path=self.variables.get("PATH"))
        if "/" in self.program:
            file = str(Path(self.folder, self.program))
        if file is None:
            return False
        with suppress(OSError), Path(file).open("rb") as script:
            start = script.read(_START)
            return start.startswith(b"#!") and b"python" in start
        return False

    @property
    def may_run_app(self) -> bool:
        """Whether it is a Python program other than pytest, which pytest-arena guards."""
        is_pytest = "pytest" in (self.name, *self.words)
        return not self.is_client and not is_pytest and self._is_python

    @property
    def may_run_others(self) -> bool:
        """Whether it is a builder such as make, or a script of a shell."""
        if self.name in _BUILDERS:
            return True
        with suppress(OSError), Path(self.folder, self.program).open("rb") as script:
            first_line = script.readline(_START)
            return first_line.startswith(b"#!") and first_line.strip().endswith(b"sh")
        return self.program.endswith(".sh")

    def code(self) -> str:
        """Return the code in a Python program's file or after `-c`, "" if it is elsewhere."""
        words = [*self.words]
        if not _PYTHON.fullmatch(self.name):
            words = [self.program]
        while words:
            word = words.pop(0)
            if word == "-c":
                return words[0] if words else ""
            if word == "-m" and words:
                word = words[0].replace(".", "/") + ".py"
            elif word.startswith("-"):
                continue
            with suppress(OSError, UnicodeDecodeError):
                return Path(self.folder, word).read_text(encoding="utf-8")
            return ""
        return ""

    @property
    def configuration(self) -> str:
        """The text of Alembic's configuration file, "" for another program."""
        if "alembic" not in (self.name, *self.words[:2]):
            return ""
        file = "alembic.ini"
        for option, value in pairwise(self.words):
            if option in ("-c", "--config"):
                file = value
        with suppress(OSError, UnicodeDecodeError):
            return Path(self.folder, file).read_text(encoding="utf-8")
        return ""


def child_programs(child: Child) -> Iterator[ChildProgram]:
    """Yield the programs that a child process runs. A shell's command line may name several."""
    reader = _CommandLines(child.folder)
    if len(child.arguments) == 1:
        # os.system, or Windows, has one text for all.
        yield from reader.in_text(child.arguments[0], child.variables)
    else:
        yield from reader.in_words(child.arguments, child.variables)


class _CommandLines:
    """Finds programs in the words of a command, and in a command line for a shell."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def in_text(
        self, text: str, variables: Mapping[str, str]
    ) -> Iterator[ChildProgram]:
        """Yield the programs of a shell's command line."""

        def value_of(name: re.Match[str]) -> str:
            return variables.get(name[1], name[0])

        for words in _simple_commands(text):
            yield from self.in_words(
                [_VARIABLE.sub(value_of, word) for word in words], variables
            )

    def in_words(
        self, words: Sequence[str], variables: Mapping[str, str]
    ) -> Iterator[ChildProgram]:
        """Yield the programs of one command."""
        assigned: dict[str, str] = {}
        is_wrapped = False
        for position, word in enumerate(words):
            rest = tuple(words[position + 1 :])
            program = ChildProgram(word, rest, {**variables, **assigned}, self._folder)
            if program.name in _SHELLS:
                texts = [text for text in rest if not text.startswith("-")]
                for text in texts:  # without the shell's options
                    yield from self.in_text(text, program.variables)
                return
            if program.is_client or _PYTHON.fullmatch(program.name):
                yield program
                return
            variable, is_assignment, value = word.partition("=")
            if is_assignment and variable.isidentifier():
                assigned[variable] = value
            elif is_wrapped and " " in word:  # the command of ssh, or of su -c
                yield from self.in_text(word, program.variables)
            elif program.name in _WRAPPERS:
                is_wrapped = True
            elif not is_wrapped and program.name not in _KEYWORDS:
                yield program
                return


def _simple_commands(text: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(re.sub(r"[\n`]", ";", text), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        tokens = list(lexer)
    except ValueError:  # a quote is missing
        tokens = text.split()
    words: list[str] = []
    is_target = False  # of a redirection
    for token in tokens:
        if token and _OPERATORS.issuperset(token):
            yield words
            words = []
        elif token and _REDIRECTIONS.issuperset(token):
            is_target = True
            if words and words[-1].isdigit():  # 2>&1
                words.pop()
        elif is_target:
            is_target = False
        else:
            words.append(token)
    yield words


def _name(program: str) -> str:
    return re.split(r"[/\\]", program)[-1].removesuffix(".exe")
