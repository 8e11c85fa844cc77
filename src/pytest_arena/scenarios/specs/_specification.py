"""The content of a specification."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal, TypeVar
from unicodedata import normalize
from urllib.parse import quote

Kind = Literal["given", "when", "then"]
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. ``kind`` is the same in any language, and for an And."""

    keyword: str
    """The keyword as in the text, without blanks: ``Given``, ``And``, ``*``, ``Soit``."""
    kind: Kind
    """And, But and ``*`` have the kind of the step before. As a first step they are a Given."""
    text: str
    line: int
    """The line in the file, from 1."""
    doc_string: str | None = None
    media_type: str = ""
    table: tuple[tuple[str, ...], ...] = ()
    is_background: bool = False

    def __str__(self) -> str:
        return f"{self.keyword} {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a Scenario Outline's Examples."""

    values: Pairs
    """Pairs of column and value, sorted. They identify the row."""
    line: int
    name: str
    """The scenario's name with the placeholders filled in."""
    steps: tuple[Step, ...]
    tags: tuple[str, ...] = ()
    rev: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioSpec:
    """One scenario, or one Scenario Outline with its rows."""

    name: str
    feature: str
    rule: str
    """The name of its Gherkin ``Rule:``, or "" without one."""
    requirement: str
    """The business rule's id, from the nearest heading or quote: ``BR-TEST-001``."""
    spec: str
    """The file, from the root folder, with ``/``."""
    line: int
    key: str
    """Its id tag (``@BTL-3``), or the names of feature, rule and scenario, joined by `` :: ``."""
    rev: str
    """The hash of its steps, ``1:3265ea09``, without layout, names and tags."""
    steps: tuple[Step, ...]
    """The steps of the Backgrounds first. Steps of an Outline have placeholders."""
    tags: tuple[str, ...] = ()
    """With ``@``. The tags of the feature and the rule are included."""
    rows: tuple[Row, ...] = ()
    is_outline: bool = False
    description: str = ""

    @property
    def place(self) -> str:
        """Its file and line: ``docs/spec.md:180``."""
        return f"{self.spec}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """An error or a warning about a specification."""

    spec: str
    """The file, from the root folder, or "" if the problem is not about a file."""
    line: int
    """0 if it is about a whole file."""
    what: str
    """One sentence: what the file has, and what was expected."""
    hint: str = ""
    """The advice."""
    is_error: bool = True
    """Whether it makes the scenario MALFORMED. Otherwise it is a warning."""
    scenario: str = ""
    """The key of the scenario that it is about."""

    @property
    def place(self) -> str:
        """File and line, ``docs/spec.md:180``, or only the file, or nothing."""
        if self.line:
            return f"{self.spec}:{self.line}"
        return self.spec

    @property
    def advice(self) -> str:
        """The problem, and what to do about it."""
        if self.hint:
            return f"{self.what} ({self.hint})"
        return self.what

    def __str__(self) -> str:
        return ": ".join(filter(None, [self.place, self.advice]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One feature, with the parser's document."""

    name: str
    line: int
    document: Mapping[str, Any] = field(
        repr=False,
        compare=False,
    )
    """The official parser's ``GherkinDocument``, with the lines of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """The content of all files, in the order of their paths and lines."""

    files: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()
    scenarios: tuple[ScenarioSpec, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GherkinText:
    """A text for the parser: a ``.feature`` file, a ``.feature.md``, or a fence of Markdown."""

    spec: str
    text: str
    first_line: int = 1
    """The number of its first line in the file."""
    language: str = "en"
    """The language, unless the text names another."""
    requirement: str = ""
    """The id of the business rule that the heading above names."""
    is_markdown: bool = False
    """Whether keywords are headings and bullets."""
    is_untitled: bool = False
    """Whether pytest-arena added its line ``Feature:``, from the heading above it."""

    @cached_property
    def lines(self) -> Sequence[str]:
        """Its lines, without line ends."""
        return self.text.split("\n")

    def line(self, number: int) -> str:
        """Return the line of this number in the file, or "" outside of this block."""
        place = number - self.first_line
        if 0 <= place < len(self.lines):
            return self.lines[place]
        return ""

    def problem(
        self,
        line: int,
        what: str,
        hint: str = "",
        *,
        is_error: bool = True,
        scenario: str = "",
    ) -> Problem:
        """Return a problem of this line of the file."""
        return Problem(
            spec=self.spec,
            line=line,
            what=what,
            hint=hint,
            is_error=is_error,
            scenario=scenario,
        )

    @property
    def last_line(self) -> int:
        """The number of its last line that is not blank."""
        return self.first_line + self.text.rstrip().count("\n")


Key = TypeVar("Key")
Value = TypeVar("Value")


def grouped_by(
    values: Iterable[Value], key: Callable[[Value], Key]
) -> defaultdict[Key, list[Value]]:
    """Return the values of each key as a list. Any other key has an empty list."""
    groups = defaultdict(list)
    for value in values:
        groups[key(value)].append(value)
    return groups


# The version of `rev_of`. If the hash includes other things, the version must change: then all
# scenarios must be reviewed again.
_VERSION = "1"


def canonical(text: str) -> str:
    """Return a text in a form to compare: composed letters, single blanks."""
    return " ".join((text if text.isascii() else normalize("NFC", text)).split())


def rev_of(steps: Iterable[Step]) -> str:
    """Return the version of steps, ``1:3265ea09``: a hash of their kinds, texts and arguments.

    Indentation, comments, names, tags, descriptions, the language of keywords, and And in the
    place of Given do not change it.
    """
    content = [_content(step) for step in steps]
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # A text may have half of a surrogate pair, which UTF-8 cannot encode.
    digest = blake2b(text.encode(errors="replace"), digest_size=4)
    return f"{_VERSION}:{digest.hexdigest()}"


def _content(step: Step) -> list[object]:
    content: list[object] = [step.kind, canonical(step.text)]
    if step.doc_string is None and not step.table:
        return content
    doc_string = []
    if step.doc_string is not None:
        doc_string = [step.media_type, _composed(step.doc_string)]
    table = [[canonical(cell) for cell in row] for row in step.table]
    return [*content, doc_string, table]


def _composed(text: str) -> str:
    return "\n".join(line.rstrip() for line in normalize("NFC", text).split("\n"))


def row_text(values: Pairs) -> str:
    """Return the values of a row in a line: ``code=409, status=ACTIVE``."""
    return ", ".join(f"{column}={value}" for column, value in values)


def step_lines(scenario: ScenarioSpec) -> tuple[str, ...]:
    """Return the steps as lines, with doc strings and tables. Equal versions have equal lines."""
    lines: list[str] = []
    for step in scenario.steps:
        lines += _lines(step)
    return tuple(lines)


def _lines(step: Step) -> Iterator[str]:
    yield f"{step.kind.capitalize()} {canonical(step.text)}"
    if step.doc_string is not None:
        yield f'  """{step.media_type}'
        for line in _composed(step.doc_string).split("\n"):
            yield f"  {line}"
        yield '  """'
    for row in step.table:
        cells = (
            canonical(cell).replace("\\", "\\\\").replace("|", "\\|") for cell in row
        )
        yield f"  | {' | '.join(cells)} |"


def similarity(these: Sequence[str], those: Sequence[str]) -> float:
    """Return how similar two scenarios are by their ``step_lines``, from 0 to 1.

    It is 0.9 or more if one word was changed, and below 0.5 for different scenarios. The call takes
    about a millisecond.
    """
    one_text = "\n".join(these)
    other_text = "\n".join(those)
    return SequenceMatcher(None, one_text, other_text, autojunk=False).ratio()


# Which values and paths do the steps name?

_VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_VERB = re.compile(rf"\b({'|'.join(_VERBS)})\b")
_HOST = re.compile(r"\bhttps?://[^\s/\"'?#]+")
# A path begins a word: not the slash of and/or, of 1/2, of a closing tag.
_PATH = re.compile(r"(?<![\w/<.}\]])/(?:[\w{}<>\-.:%~@+*]+/?)*")
_LONE = re.compile(
    r"(?:\b(?:to|at|on|visit|open|request)|" + "|".join(_VERBS) + r")\s+[\"'`]?$"
)
_QUOTED = re.compile(r"\"([^\"\n]+)\"|“([^”\n]+)”|(?<!\w)'([^'\n]+)'(?!\w)|`([^`\n]+)`")
_MARKS = "\"“'`"
_BARE = re.compile(r"(?<![\w.,-])(-?\d+(?:\.\d+)?)(?!\w|\.\d)|\b([A-Z][A-Z0-9_]+)\b")
_PLACEHOLDER = re.compile(r"<(\w[\w .-]*)>")
_HOLES = re.compile(r"[{<][^{}<>\n]*[}>]")
# Words in capitals that are not values.
_PLAIN = frozenset(
    {*_VERBS, "HTTP", "HTTPS", "URL", "URI", "API", "JSON", "XML", "HTML", "ID"}
)


def literals(
    scenario: ScenarioSpec,
    rows: Collection[object] = (),
) -> tuple[str, ...]:
    """Return the quoted texts, numbers and words in capitals of the steps, each once.

    Paths and their parts are left out.

    Args:
        scenario: the scenario.
        rows: the values of the rows to read, of an Outline. If it has none of them, all its rows
            are read.

    >>> literals(scenario)  # doctest: +SKIP
    ('Summer Battle 2024', 'PRESELECTION', '8')
    """
    own_rows = [row for row in scenario.rows if row.values in rows]
    steps = list(scenario.steps)
    if scenario.rows:
        steps = []
        for row in own_rows or scenario.rows:
            steps += row.steps
    # All steps at once are quicker. No literal goes beyond the end of a line.
    text = "\n".join(step.text for step in steps)
    return tuple(dict.fromkeys(_literals(text)))


def _literals(text: str) -> Iterator[str]:
    values = []
    bare = text
    if any(mark in text for mark in _MARKS):
        for hit in _QUOTED.finditer(text):
            value = next(filter(None, hit.groups()))
            if not _PATH.fullmatch(value):
                values.append((hit.start(), value))
        bare = _QUOTED.sub(_blanked, text)
    if "/" in bare:
        bare = _PATH.sub(_blanked, _HOST.sub(_blanked, bare))
    if "{" in bare or "<" in bare:
        bare = _HOLES.sub(_blanked, bare)
    values += [(hit.start(), hit.group()) for hit in _BARE.finditer(bare)]
    for _, value in sorted(values):
        if value not in _PLAIN:
            yield value


def _blanked(match: re.Match[str]) -> str:
    return " " * len(match.group())


def paths(scenario: ScenarioSpec, row: Pairs = ()) -> tuple[tuple[str, str], ...]:
    """Return the paths of the steps, each with its verb in capitals or ``""``, each pair once.

    A value of the row replaces its placeholder. Other placeholders are written as in a route:
    ``/battles/{battle_id}/start``.
    """
    pairs: dict[tuple[str, str], None] = {}
    for step in scenario.steps:
        text = step.text
        for column, value in row:
            # Quoted, because a blank would end the path.
            text = text.replace(f"<{column}>", quote(value, safe="/?#:"))
        pairs |= dict.fromkeys(_paths(text))
    return tuple(pairs)


def _paths(text: str) -> Iterator[tuple[str, str]]:
    text = _HOST.sub("", text)
    text = _PLACEHOLDER.sub(
        lambda match: "{" + re.sub(r"\W+", "_", match[1]) + "}",
        text,
    )
    begin = 0
    for match in _PATH.finditer(text):
        path = match.group().rstrip(".,:;")
        if path == "/" and not _LONE.search(text[: match.start()]):
            continue
        verbs = _VERB.findall(text, begin, match.start())
        begin = match.end()
        yield ["", *verbs][-1], path
