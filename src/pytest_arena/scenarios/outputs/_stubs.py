"""Which tests are lacking, what do they look like, and into which files do they go?"""

import ast
import io
import keyword
import re
import tokenize
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from pathlib import Path, PurePosixPath

from pytest_arena.scenarios.specs._index import Index, printable, quoted
from pytest_arena.scenarios.specs._specification import Row, ScenarioSpec, Step

# Files: no line that is there is changed.


@dataclass(frozen=True, slots=True)
class StubFile:
    """What is to be written: a new file, or what comes after the end of one that is there."""

    path: Path
    text: str
    tests: int
    is_new: bool

    def write(self) -> None:
        """Write it. No byte that is there is changed.

        Raises:
            OSError: the file cannot be written, or has come into being in the meantime.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = "x" if self.is_new else "a"
        with self.path.open(mode, encoding="utf-8", newline="") as file:
            file.write(self.text)


def stubs(
    scenarios: Sequence[ScenarioSpec],
    *,
    index: Index,
    mapped: Collection[str] = (),
    folder: Path | None = None,
    runner: str | None = "",
    elsewhere: Collection[str] = (),
) -> list[StubFile]:
    """Return what is to be written for each scenario to have a test.

    One file for each feature, one test for each scenario. Each fails as a stub until it is
    written. Nothing is written here, and nothing that is there would be changed: tests are added
    at the end of a feature's file, or go into one with a number where it cannot take them.

    Args:
        scenarios: all of them: a feature's file has its name whichever of them have a test.
        index: says how a marker names a scenario.
        mapped: keys of the scenarios that get none.
        folder: where the files are, or will be; None for those of an empty folder.
        runner: the marker that async tests need to be run: ``asyncio``, ``anyio`` or "" for none.
            None: the project's tests are no coroutines.
        elsewhere: names of test modules in other folders.
    """
    names: dict[
        str, str
    ] = {}  # of files, by features; the first of two that are like has its own
    lacking: dict[str, list[ScenarioSpec]] = {}
    for scenario in scenarios:
        feature = _feature(scenario)
        if feature not in names:
            name = slug(feature)
            names[feature] = (
                slug_with_hash(name, feature) if name in names.values() else name
            )
        if scenario.key not in mapped:
            lacking.setdefault(names[feature], []).append(scenario)
    files = []
    for name, ones in lacking.items():
        place = (
            _find_place(folder, name, elsewhere)
            if folder
            else _TestModule(Path(f"test_{name}.py"))
        )
        names_there = {*place.names, "pytest"}
        tests = "\n\n".join(
            _test(scenario, names_there, index=index, runner=runner)
            for scenario in ones
        )
        # Two empty lines after imports, but one before a value: so isort has it.
        gap = "\n\n" if tests.startswith("@") else "\n"
        feature = in_triple_quotes(_feature(ones[0]))
        head = f'"""Scenarios of the feature {feature}."""\n\nimport pytest\n{gap}'
        text = f"{place.gap if place.text else head}{tests}".replace(
            "\n", place.newline
        )
        files.append(StubFile(place.path, text, len(ones), place.is_new))
    return files


def _feature(scenario: ScenarioSpec) -> str:
    """Its name; features of one name are the same, whichever files they stand in."""
    name = " ".join(unicodedata.normalize("NFC", scenario.feature).split())
    return name or PurePosixPath(scenario.spec).stem


@dataclass(frozen=True, slots=True)
class _TestModule:
    """A file that tests can go to: which names it has already, and how it ends."""

    path: Path
    is_new: bool = True
    text: str = ""
    names: frozenset[str] = frozenset()

    @property
    def newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    @property
    def gap(self) -> str:
        """What has to come before a test, for two empty lines to be between."""
        ended = self.text.replace("\r\n", "\n")
        return "\n" * max(0, 3 - (len(ended) - len(ended.rstrip("\n"))))


def _find_place(folder: Path, name: str, elsewhere: Collection[str]) -> _TestModule:
    """Return ``test_<name>.py``, or with the first number at which it can be had.

    Outside of packages Python would take two modules of one name for the same.
    """
    is_package = (folder / "__init__.py").exists()
    paths = (
        folder / f"test_{name}{f'_{number}' * (number > 1)}.py" for number in count(1)
    )
    free = (path for path in paths if is_package or path.name not in elsewhere)
    return next(place for path in free if (place := _place(path)))


def _place(path: Path) -> _TestModule | None:
    """A file that is not there, or that is Python in UTF-8 and imports pytest; else None."""
    if not path.exists():
        return _TestModule(path)
    try:
        code = path.read_bytes()
        # A BOM is another encoding: nothing can come after its text unseen.
        is_utf8 = tokenize.detect_encoding(io.BytesIO(code).readline)[0] == "utf-8"
        text, tree = code.decode(), ast.parse(code)
    except (OSError, ValueError, SyntaxError):
        return None
    imports = [
        name
        for node in tree.body
        if isinstance(node, ast.Import)
        for name in node.names
    ]
    if not is_utf8 or (
        text and not any(one.name == "pytest" and not one.asname for one in imports)
    ):
        return None
    # All names that a module gives to anything, as those of its functions are no more free.
    named = (
        getattr(node, "asname", None)
        or getattr(node, "name", None)
        or getattr(node, "id", None)
        for node in ast.walk(tree)
    )
    names = frozenset(name for name in named if isinstance(name, str))
    return _TestModule(path, is_new=False, text=text, names=names)


# One test, which fails until somebody writes it.

_WIDTH = 88
# Longer names are cut: a file's may have 255 bytes, and nobody reads more of a function's.
_LETTERS = 60
# The parameter for a whole row of Examples.
_ROW = "example"
# What a stub uses itself.
_TAKEN = {
    "client",
    "db_session",
    "pytest",
    "request",
    "row",
    "scenario",
    "self",
    "table",
}
_TAKEN |= {"test_client"}


def _test(
    scenario: ScenarioSpec, taken: set[str], *, index: Index, runner: str | None
) -> str:
    """Return the code of a test. Its names are none of those ``taken``, and are added."""
    name = _free(f"test_{slug(scenario.name).removeprefix('test_')}", taken)
    taken.add(name)
    parameters, columns = _columns(scenario)
    tags = {*scenario.tags}
    has_given = any(step.kind == "given" for step in scenario.steps)
    client, function = (
        ("client", "async def") if runner is not None else ("test_client", "def")
    )
    fixtures = [client] * ("@no-request" not in tags)
    fixtures += ["db_session"] * (has_given and "@no-seed" not in tags)
    texts: list[str] = []
    steps: list[str] = []
    for step in scenario.steps:
        text = ""
        if (
            step.doc_string is not None
        ):  # before the test: so its lines stay as they are
            prefix = f"{name.removeprefix('test_')}_text".upper().lstrip("0123456789_")
            text = _free(prefix, taken)
            taken.add(text)
            texts += [
                f'{text} = """\\',
                f'{in_triple_quotes(step.doc_string)}"""',
                "",
                "",
            ]
            text += _replacements(step.doc_string, columns)
        steps += _block(step, text, columns)
    return "\n".join(
        [
            *texts,
            *[f"@pytest.mark.{runner}"] * bool(runner),
            index.marker(scenario),
            *_parametrized(scenario.rows, parameters),
            *_bracketed(
                f"{function} {name}(", [*fixtures, "scenario", *parameters], "):"
            ),
            f'    """{in_triple_quotes(scenario.place)}"""',
            *steps,
            "",
        ]
    )


def _columns(scenario: ScenarioSpec) -> tuple[tuple[str, ...], dict[str, str]]:
    """The parameters that an Outline's rows are given by, and the code for each column.

    One for each column, by its own name, since by that the row is found which a test proves; or
    one for the whole row, where a column's name cannot be a parameter's.
    """
    columns = [column for row in scenario.rows[:1] for column, _ in row.values]
    names = dict.fromkeys(
        re.sub(r"\W+", "_", column.strip()).casefold() for column in columns
    )
    if len(names) == len(columns) and all(map(_is_parameter, names)):
        return tuple(names), dict(zip(columns, names, strict=True))
    return (_ROW,), {column: f"{_ROW}[{quoted(column)}]" for column in columns}


def _is_parameter(name: str) -> bool:
    is_python = name.isidentifier() and unicodedata.normalize("NFKC", name) == name
    return is_python and not (
        keyword.iskeyword(name) or name in _TAKEN or name.startswith("_")
    )


def _parametrized(rows: Sequence[Row], parameters: Sequence[str]) -> Iterator[str]:
    if not rows:
        return
    yield "@pytest.mark.parametrize("
    names = ", ".join(map(quoted, parameters))
    yield f"    {names if len(parameters) == 1 else f'({names})'},"
    yield "    ["
    ids: set[str] = set()
    for values in dict.fromkeys(row.values for row in rows):
        # Its values, and a number where that says the same of two.
        name = _free(
            "-".join(printable(cell) for _, cell in values)[:_LETTERS] or "empty", ids
        )
        ids.add(name)
        cells = [quoted(cell) for _, cell in values]
        if tuple(parameters) == (_ROW,):
            cells = [f"{{{', '.join(_pairs(dict(values), {}))}}}"]
        yield from _bracketed(
            "pytest.param(", [*cells, f"id={quoted(name)}"], "),", indent=8
        )
    yield "    ],"
    yield ")"


def _block(step: Step, text: str, columns: Mapping[str, str]) -> Iterator[str]:
    if step.table:
        yield "    table = ["
        first, *rest = step.table
        if rest and len(set(first)) == len(first) and all(first):
            for row in rest:
                pairs = _pairs(dict(zip(first, row, strict=True)), columns)
                yield from _bracketed("{", pairs, "},", indent=8)
        else:  # that cannot be a row of names
            for row in step.table:
                yield from _bracketed(
                    "[", [_filled(cell, columns) for cell in row], "],", indent=8
                )
        yield "    ]"
    yield from _bracketed(
        f"with scenario.{step.kind}(", [quoted(step.text)], "):", indent=4
    )
    indent = " " * 8
    if step.table:
        yield f"{indent}for row in table:"
        indent += " " * 4
    yield from [f"{indent}# text: {text}"] * bool(text)
    yield f"{indent}scenario.todo()"


def _bracketed(
    opening: str, items: Iterable[str], closing: str, *, indent: int = 0
) -> list[str]:
    """Items in one line if they fit, else one a line: a formatter leaves it as it is."""
    items = [*items]
    margin = " " * indent
    line = f"{margin}{opening}{', '.join(items)}{closing}"
    if len(line) <= _WIDTH or not items:
        return [line]
    return [
        f"{margin}{opening}",
        *(f"{margin}    {item}," for item in items),
        f"{margin}{closing}",
    ]


def _pairs(row: Mapping[str, str], columns: Mapping[str, str]) -> list[str]:
    return [f"{quoted(name)}: {_filled(cell, columns)}" for name, cell in row.items()]


def _filled(text: str, columns: Mapping[str, str]) -> str:
    """The code for a text with an Outline's placeholders."""
    if text.startswith("<") and text[1:-1] in columns and text.endswith(">"):
        return columns[text[1:-1]]
    return quoted(text) + _replacements(text, columns)


def _replacements(text: str, columns: Mapping[str, str]) -> str:
    """The calls that put a row's values in the place of the placeholders."""
    return "".join(
        f".replace({quoted(f'<{column}>')}, {code})"
        for column, code in columns.items()
        if f"<{column}>" in text
    )


def in_triple_quotes(text: str) -> str:
    """Return what stands for ``text`` between triple quotes, over as many lines as it has."""
    lines = (
        re.sub(r" $", r"\\x20", printable(line.replace("\\", r"\\")))
        for line in text.split("\n")
    )
    return re.sub(r'"(?="")|"\Z', r"\"", "\n".join(lines))


def slug(text: str) -> str:
    """Return small ASCII words, joined by ``_``: for the name of a file or a function.

    A hash of the text is added where letters got lost, so that two names in another alphabet do
    not become one: ``Ein Käse`` is ``ein_kase``, ``Битва 1`` is ``1_e8334cae``.
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    plain = re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text))
    # Signs say nothing that a name needs; a letter that is lost may: it is kept, and seen.
    plain = re.sub(r"[^\w\s]|_", " ", plain)
    words = "_".join(re.findall(r"[a-z0-9]+", plain.lower()))
    if words and plain.isascii() and len(words) <= _LETTERS:
        return words
    return slug_with_hash(words, text)


def slug_with_hash(words: str, text: str) -> str:
    """Return words that are told from others by a hash of the text."""
    hashed = blake2b(text.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return "_".join(filter(None, [words[:_LETTERS].rstrip("_"), hashed]))


def _free(name: str, taken: Collection[str]) -> str:
    """The name, or with the first number after it that is not taken."""
    number, tried = 1, name
    while tried in taken:
        number += 1
        tried = f"{name}_{number}"
    return tried
