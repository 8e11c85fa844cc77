"""What stands in a specification (features, scenarios, steps), and in which version."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from hashlib import blake2b
from typing import Any, Literal, TypeVar
from unicodedata import normalize

Kind = Literal["given", "when", "then"]
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. ``kind`` is what it is in any language, whatever it is begun with."""

    keyword: str
    """As it is written, without blanks: ``Given``, ``And``, ``*``, ``Soit``."""
    kind: Kind
    """And, But and ``*`` are what the step before is; at a scenario's beginning a Given."""
    text: str
    line: int
    """In the file, from 1."""
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
    """Pairs of column and value, sorted: what a row is known by, wherever it stands."""
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
    """The name of the Gherkin ``Rule:`` that it stands in, else empty."""
    requirement: str
    """The business rule's id, from the nearest heading or quote: ``BR-TEST-001``, else empty."""
    spec: str
    """The file, from the root folder, with ``/``."""
    line: int
    key: str
    """What it is known by, wherever it stands: its own id tag (``@BTL-3``), else the names of
    feature, rule and scenario, joined by `` :: ``."""
    rev: str
    """The hash of its steps, ``1:3265ea09``: blind to looks, names and tags."""
    steps: tuple[Step, ...]
    """Those of the Backgrounds first. Of an Outline: with the placeholders in them."""
    tags: tuple[str, ...] = ()
    """With ``@``; those of the feature and the rule too."""
    rows: tuple[Row, ...] = ()
    is_outline: bool = False
    description: str = ""

    @property
    def place(self) -> str:
        """Where it stands: ``docs/spec.md:180``."""
        return f"{self.spec}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """Something in a specification, or about one, that is not as it should be."""

    spec: str
    """The file, from the root folder; empty where it concerns none."""
    line: int
    """0 where it concerns a whole file."""
    what: str
    """One sentence, with what was found and what was expected."""
    hint: str = ""
    """What to do about it."""
    is_error: bool = True
    """Whether the scenario is MALFORMED by it (the file, where there is none); else a warning."""
    scenario: str = ""
    """The key of the scenario that it is about, where there is one."""

    @property
    def place(self) -> str:
        """Where it is: ``docs/spec.md:180``, a whole file, or nothing."""
        return f"{self.spec}:{self.line}" if self.line else self.spec

    @property
    def advice(self) -> str:
        """What it is, and what to do about it."""
        return f"{self.what} ({self.hint})" if self.hint else self.what

    def __str__(self) -> str:
        return ": ".join(filter(None, [self.place, self.advice]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One feature, as the parser has it."""

    name: str
    line: int
    document: Mapping[str, Any] = field(repr=False, compare=False)
    """The official parser's ``GherkinDocument``, with the lines of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """All that the files say, in the order of their paths and lines."""

    files: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()
    scenarios: tuple[ScenarioSpec, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GherkinText:
    """What the parser is handed: a ``.feature`` file, a ``.feature.md``, or a fence of Markdown."""

    spec: str
    text: str
    first_line: int = 1
    """Its first line's number in the file."""
    language: str = "en"
    """Where the text names none."""
    requirement: str = ""
    """The id of the business rule that it stands under."""
    is_markdown: bool = False
    """Whether keywords are headings and bullets."""
    is_untitled: bool = False
    """Whether its line ``Feature:`` is ours, from the heading above it."""
    lines: Sequence[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", self.text.split("\n"))

    def line(self, number: int) -> str:
        """Return the line of this number in the file; empty if it is not of this block."""
        place = number - self.first_line
        return self.lines[place] if 0 <= place < len(self.lines) else ""

    def problem(
        self,
        line: int,
        what: str,
        hint: str = "",
        *,
        is_error: bool = True,
        scenario: str = "",
    ) -> Problem:
        """Return what is wrong with this line of the file."""
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
        """The number of its last line that says something."""
        return self.first_line + self.text.rstrip().count("\n")


Key = TypeVar("Key")
Value = TypeVar("Value")


def grouped_by(
    values: Iterable[Value], key: Callable[[Value], Key]
) -> defaultdict[Key, list[Value]]:
    """Return lists of values by their keys; of a key that none has an empty one."""
    groups: defaultdict[Key, list[Value]] = defaultdict(list)
    for value in values:
        groups[key(value)].append(value)
    return groups


# What `rev_of` takes in and leaves out. A change of that is another version: all that was
# reviewed has to be reviewed again, and says so.
_VERSION = "1"


def canonical(text: str) -> str:
    """Return a text without what does not count: composed letters, single blanks."""
    return " ".join((text if text.isascii() else normalize("NFC", text)).split())


def rev_of(steps: Iterable[Step]) -> str:
    """Return the version of steps, ``1:3265ea09``: of what they are and say.

    It is blind to indentation, comments, names, tags, descriptions, to And in the place of Given,
    and to the language of the keywords. Doc strings and tables count.
    """
    content = [_content(step) for step in steps]
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # A text may hold half of a surrogate pair, which no encoding knows.
    return f"{_VERSION}:{blake2b(text.encode(errors='replace'), digest_size=4).hexdigest()}"


def _content(step: Step) -> list[Any]:
    content: list[Any] = [step.kind, canonical(step.text)]
    if step.doc_string is not None or step.table:
        document = (
            []
            if step.doc_string is None
            else [step.media_type, _composed(step.doc_string)]
        )
        content += [document, [[canonical(cell) for cell in row] for row in step.table]]
    return content


def _composed(text: str) -> str:
    return "\n".join(line.rstrip() for line in normalize("NFC", text).split("\n"))


def step_lines(scenario: ScenarioSpec) -> tuple[str, ...]:
    """Return the steps as lines, doc strings and tables too: equal if the versions are."""
    return tuple(line for step in scenario.steps for line in _lines(step))


def _lines(step: Step) -> Iterator[str]:
    yield f"{step.kind.capitalize()} {canonical(step.text)}"
    if step.doc_string is not None:
        text = _composed(step.doc_string).split("\n")
        yield from (f'  """{step.media_type}', *(f"  {line}" for line in text), '  """')
    for row in step.table:
        cells = (
            canonical(cell).replace("\\", "\\\\").replace("|", "\\|") for cell in row
        )
        yield f"  | {' | '.join(cells)} |"


def similarity(these: Sequence[str], those: Sequence[str]) -> float:
    """Return how like two scenarios are by their ``step_lines``, from 0 to 1.

    Of a scenario and the same one with a word changed 0.9 and more; of two others below 0.5. It
    takes about a millisecond.
    """
    return SequenceMatcher(
        None, "\n".join(these), "\n".join(those), autojunk=False
    ).ratio()


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
# They say how, not what.
_PLAIN = frozenset(
    {*_VERBS, "HTTP", "HTTPS", "URL", "URI", "API", "JSON", "XML", "HTML", "ID"}
)


def literals(scenario: ScenarioSpec, rows: Collection[object] = ()) -> tuple[str, ...]:
    """Return the quoted texts, numbers and words in capitals of the steps, each once.

    Of an Outline those of the rows with these values; of all rows where it has none of them. Paths
    are no literals, nor is what they are made of.

    >>> literals(scenario)  # doctest: +SKIP
    ('Summer Battle 2024', 'PRESELECTION', '8')
    """
    mine = [row for row in scenario.rows if row.values in rows] or scenario.rows
    steps = [step for row in mine for step in row.steps] or scenario.steps
    # All at once: what is found ends with its line.
    return tuple(dict.fromkeys(_literals("\n".join(step.text for step in steps))))


def _literals(text: str) -> Iterator[str]:
    values: list[tuple[int, str]] = []
    bare = text
    if any(mark in text for mark in _MARKS):
        quoted = (
            (hit.start(), next(filter(None, hit.groups())))
            for hit in _QUOTED.finditer(text)
        )
        values = [
            (place, value) for place, value in quoted if not _PATH.fullmatch(value)
        ]
        bare = _QUOTED.sub(_blanked, text)
    if "/" in bare:
        bare = _PATH.sub(_blanked, _HOST.sub(_blanked, bare))
    if "{" in bare or "<" in bare:
        bare = _HOLES.sub(_blanked, bare)
    values += [(hit.start(), hit.group()) for hit in _BARE.finditer(bare)]
    yield from (value for _, value in sorted(values) if value not in _PLAIN)


def _blanked(match: re.Match[str]) -> str:
    return " " * len(match.group())


def paths(scenario: ScenarioSpec) -> tuple[tuple[str, str], ...]:
    """Return the paths of the steps, each with its verb in capitals or ``""``, each pair once.

    Placeholders are written as a route has them: ``/battles/{battle_id}/start``.
    """
    return tuple(
        dict.fromkeys(path for step in scenario.steps for path in _paths(step.text))
    )


def _paths(text: str) -> Iterator[tuple[str, str]]:
    text = _PLACEHOLDER.sub(_as_in_a_route, _HOST.sub("", text))
    begin = 0
    for match in _PATH.finditer(text):
        path = match.group().rstrip(".,:;")
        if path == "/" and not _LONE.search(text[: match.start()]):
            continue
        verbs = _VERB.findall(text, begin, match.start())
        begin = match.end()
        yield (verbs[-1] if verbs else "", path)


def _as_in_a_route(placeholder: re.Match[str]) -> str:
    return "{" + re.sub(r"\W+", "_", placeholder.group(1)) + "}"
