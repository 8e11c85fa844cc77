"""The content of a specification."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    """And, But and ``*`` have the kind of the step before. A first step of these is a Given."""
    text: str
    line: int
    """The number of the line in the file. The first line is 1."""
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
    """Sorted pairs of column and value. They identify the row."""
    line: int
    name: str
    """The scenario's name with the placeholders filled in."""
    steps: tuple[Step, ...]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioSpec:
    """One scenario, or one Scenario Outline with its rows."""

    name: str
    feature: str
    rule: str
    """The name of its Gherkin ``Rule:``, or "" without one."""
    requirement: str
    """The id of the business rule in the nearest heading or quote: ``BR-TEST-001``."""
    spec: str
    """The path of the file from the root folder, with ``/``."""
    line: int
    key: str
    """The id tag (``@BTL-3``), or the names of feature, rule and scenario, joined by `` :: ``."""
    rev: str
    """The hash of the steps and of the rows, ``1:3265ea09``, without layout, names and tags."""
    steps: tuple[Step, ...]
    """The steps of the Backgrounds precede the others. Steps of an Outline have placeholders."""
    tags: tuple[str, ...] = ()
    """The tags with ``@``, also those of the feature and the rule."""
    rows: tuple[Row, ...] = ()
    is_outline: bool = False
    description: str = ""

    @property
    def place(self) -> str:
        """The file and the line: ``docs/spec.md:180``."""
        return f"{self.spec}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """An error or a warning about a specification."""

    spec: str
    """The path of the file from the root folder, or "" if the problem is about no file."""
    line: int
    """The number of the line, or 0 if the problem is about a whole file."""
    what: str
    """One sentence about the content of the file and the expected content."""
    hint: str = ""
    """The advice."""
    is_error: bool = True
    """Whether the problem makes the scenario MALFORMED. Otherwise it is a warning."""
    scenario: str = ""
    """The key of the scenario that the problem is about."""

    @property
    def place(self) -> str:
        """The file and the line, ``docs/spec.md:180``, or only the file, or "" without a file."""
        if self.line:
            return f"{self.spec}:{self.line}"
        return self.spec

    @property
    def advice(self) -> str:
        """The problem with the advice."""
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
    """The number of the text's first line in the file."""
    language: str = "en"
    """The language, unless a comment of the text names another language."""
    requirement: str = ""
    """The id of the business rule that the heading above names."""
    is_markdown: bool = False
    """Whether keywords are headings and bullets."""
    is_untitled: bool = False
    """Whether pytest-arena added the line ``Feature:``, from the heading above the text."""

    @cached_property
    def lines(self) -> Sequence[str]:
        """The lines of the text, without line ends."""
        return self.text.split("\n")

    def line(self, number: int) -> str:
        """Return the line with this number in the file, or "" outside of the text."""
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
        """The number of the last line that is not blank."""
        return self.first_line + self.text.rstrip().count("\n")


Key = TypeVar("Key")
Value = TypeVar("Value")


def grouped_by(
    values: Iterable[Value], key: Callable[[Value], Key]
) -> defaultdict[Key, list[Value]]:
    """Return the list of values for each key. Any other key has an empty list."""
    groups = defaultdict(list)
    for value in values:
        groups[key(value)].append(value)
    return groups


# The version of `rev_of`. It must change if the hash includes other things. Then the users review
# all scenarios again.
_VERSION = "1"


def canonical(text: str) -> str:
    """Return a text with composed letters and single blanks, for comparisons."""
    if not text.isascii():
        text = normalize("NFC", text)
    return " ".join(text.split())


def rev_of(steps: Iterable[Step]) -> str:
    """Return the version of steps, ``1:3265ea09``: a hash of their kinds, texts and arguments.

    The hash does not include indentation, comments, names, tags, descriptions and keywords. An And
    has the hash of its kind.
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
    """Return the values of a row in one line: ``code=409, status=ACTIVE``."""
    return ", ".join(f"{column}={value}" for column, value in values)


def step_lines(scenario: ScenarioSpec) -> tuple[str, ...]:
    """Return the lines of the steps, doc strings and tables. Equal versions have equal lines."""
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


# The values and the paths that steps name.

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
        rows: the values of the rows to read. If the scenario has no such row, all its rows are
            read.

    >>> literals(scenario)  # doctest: +SKIP
    ('Summer Battle 2024', 'PRESELECTION', '8')
    """
    own_rows = [row for row in scenario.rows if row.values in rows]
    steps = list(scenario.steps)
    if scenario.rows:
        steps = []
        for row in own_rows or scenario.rows:
            steps += row.steps
    # One search in all steps is fast. No literal extends beyond a line.
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
    """Return the distinct paths of the steps, each with its verb in capitals or ``""``.

    A value of the row replaces its placeholder. Other placeholders are written as in a route:
    ``/battles/{battle_id}/start``.
    """
    pairs: dict[tuple[str, str], None] = {}
    for step in scenario.steps:
        text = step.text
        for column, value in row:
            # The value is quoted, because a blank would end the path.
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
