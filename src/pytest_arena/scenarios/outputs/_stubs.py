"""Writes the missing tests as stubs."""

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

from pytest_arena.scenarios.specs._index import Index, identifier, printable, quoted
from pytest_arena.scenarios.specs._specification import Row, ScenarioSpec, Step

_NAMES = ("asname", "name", "id")
"""The attributes of syntax nodes that are names."""

# Files.


@dataclass(frozen=True, slots=True)
class StubFile:
    """A new file, or a text to append to an existing file."""

    path: Path
    text: str
    tests: int
    is_new: bool

    def write(self) -> None:
        """Create the file, or append to it. Existing bytes do not change.

        Raises:
            OSError: the file cannot be written, or another program has created the new file.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = "a"
        if self.is_new:
            mode = "x"
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
    """Return a file for each feature, with a test for each scenario that has none.

    This function writes no file. New tests follow the tests in the file of a feature. If that is
    impossible, they get a file with a number.

    Args:
        scenarios: all scenarios. They decide the names of files.
        index: finds the names of scenarios for markers.
        mapped: the keys of the scenarios that have a test.
        folder: the folder of the test files, or None for an empty folder.
        runner: the marker that async tests need: ``asyncio``, ``anyio`` or "" for no marker. None
            if the tests of the project are plain functions.
        elsewhere: the names of test modules in other folders.
    """
    names: dict[str, str] = {}  # of files, by feature
    missing: dict[str, list[ScenarioSpec]] = {}  # by name of file
    for scenario in scenarios:
        feature = _feature(scenario)
        if feature not in names:
            name = slug(feature)
            if name in names.values():
                name = slug_with_hash(name, feature)
            names[feature] = name
        if scenario.key not in mapped:
            missing.setdefault(names[feature], []).append(scenario)
    files = []
    for name, feature_scenarios in missing.items():
        module = _TestModule(Path(f"test_{name}.py"))
        if folder is not None:
            module = _find_module(folder, name, elsewhere)
        files.append(_stub_file(module, feature_scenarios, index, runner))
    return files


def _stub_file(
    module: "_TestModule",
    scenarios: list[ScenarioSpec],
    index: Index,
    runner: str | None,
) -> StubFile:
    names = {*module.names, "pytest"}
    tests = [
        _test(scenario, names, index=index, runner=runner) for scenario in scenarios
    ]
    text = "\n\n".join(tests)
    if module.text:
        # Add line ends for two blank lines before the new tests.
        existing_text = module.text.replace("\r\n", "\n")
        line_ends = len(existing_text) - len(existing_text.rstrip("\n"))
        text = "\n" * max(0, 3 - line_ends) + text
    else:
        feature = in_triple_quotes(_feature(scenarios[0]))
        # isort puts two blank lines between imports and a function, but one before a value.
        gap = "\n"
        if text.startswith("@"):
            gap = "\n\n"
        text = (
            f'"""Scenarios of the feature {feature}."""\n\nimport pytest\n{gap}{text}'
        )
    if "\r\n" in module.text:
        text = text.replace("\n", "\r\n")
    return StubFile(
        module.path,
        text,
        len(scenarios),
        module.is_new,
    )


def _feature(scenario: ScenarioSpec) -> str:
    """Return the name of the feature. Features with the same name share a test file."""
    name = " ".join(unicodedata.normalize("NFC", scenario.feature).split())
    return name or PurePosixPath(scenario.spec).stem


@dataclass(frozen=True, slots=True)
class _TestModule:
    """A test file with its text and the names that it uses."""

    path: Path
    is_new: bool = True
    text: str = ""
    names: frozenset[str] = frozenset()


def _find_module(
    folder: Path,
    name: str,
    elsewhere: Collection[str],
) -> _TestModule:
    """Return ``test_<name>.py``, or the first such file with a number that can get tests.

    Outside of packages Python would treat two modules with the same name as one module.
    """
    is_package = (folder / "__init__.py").exists()
    path = folder / f"test_{name}.py"
    for number in count(2):
        if is_package or path.name not in elsewhere:
            module = _read_module(path)
            if module:
                return module
        path = folder / f"test_{name}_{number}.py"
    raise AssertionError("unreachable: numbers do not end")


def _read_module(path: Path) -> _TestModule | None:
    """Return a new file, or an existing file in UTF-8 that imports pytest. None for others."""
    if not path.exists():
        return _TestModule(path)
    try:
        code = path.read_bytes()
        # With a byte order mark, the encoding is not "utf-8".
        encoding, _ = tokenize.detect_encoding(io.BytesIO(code).readline)
        text = code.decode()
        tree = ast.parse(code)
    except (OSError, ValueError, SyntaxError):
        return None
    imported = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            imported += [(alias.name, alias.asname) for alias in node.names]
    has_pytest = ("pytest", None) in imported
    if encoding != "utf-8" or (text and not has_pytest):
        return None
    return _TestModule(
        path,
        is_new=False,
        text=text,
        names=_names_in(tree),
    )


def _names_in(tree: ast.Module) -> frozenset[str]:
    """Return all names that a module uses, also inside of functions."""
    names = set()
    for node in ast.walk(tree):
        for attribute in _NAMES:
            name = getattr(node, attribute, None)
            if isinstance(name, str):
                names.add(name)
    return frozenset(names)


# One test.

_WIDTH = 88
_LONGEST_NAME = 60  # a file's name may have 255 bytes
_ROW = "example"
"""The parameter for a whole row of Examples."""
_TAKEN = frozenset(
    {
        "client",
        "db_session",
        "pytest",
        "request",
        "row",
        "scenario",
        "self",
        "table",
        "test_client",
    }
)
"""The names that a stub uses."""


def _test(
    scenario: ScenarioSpec,
    taken: set[str],
    *,
    index: Index,
    runner: str | None,
) -> str:
    """Return the code of a test. Its new names are added to the taken names."""
    name = _free(f"test_{slug(scenario.name).removeprefix('test_')}", taken)
    parameters, columns = _columns(scenario)
    lines: list[str] = []
    steps: list[str] = []
    for step in scenario.steps:
        text = ""
        if step.doc_string is not None:
            # In a constant before the test, the lines keep their indentation.
            constant = f"{name.removeprefix('test_')}_text".upper()
            text = _free(constant.lstrip("0123456789_"), taken)
            content = in_triple_quotes(step.doc_string)
            lines += [f'{text} = """\\', f'{content}"""', "", ""]
            text += _replacements(step.doc_string, columns)
        steps += _block(step, text, columns)
    function = "async def"
    if runner is None:
        function = "def"
    elif runner:
        lines.append(f"@pytest.mark.{runner}")
    arguments = [*_fixtures(scenario, is_async=runner is not None), *parameters]
    lines.append(index.marker(scenario))
    lines += _parametrized(scenario.rows, parameters)
    lines += _bracketed(
        f"{function} {name}(",
        arguments,
        "):",
    )
    lines.append(f'    """{in_triple_quotes(scenario.place)}"""')
    lines += steps
    return "\n".join([*lines, ""])


def _fixtures(scenario: ScenarioSpec, *, is_async: bool) -> list[str]:
    """Return the fixtures that the test will probably need."""
    fixtures = ["scenario"]
    has_given = any(step.kind == "given" for step in scenario.steps)
    if has_given and "@no-seed" not in scenario.tags:
        fixtures.insert(0, "db_session")
    if "@no-request" not in scenario.tags:
        client = "test_client"
        if is_async:
            client = "client"
        fixtures.insert(0, client)
    return fixtures


def _columns(scenario: ScenarioSpec) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the parameters for the rows of an Outline, and the code for each column.

    Each column is a parameter, so that pytest-arena finds the row that a test proves. If the name
    of a column cannot be a parameter, the whole row is one parameter.
    """
    columns = []
    if scenario.rows:
        columns = [column for column, _ in scenario.rows[0].values]
    codes = {column: identifier(column) for column in columns}
    names = tuple(codes.values())
    is_unique = len(set(names)) == len(columns)
    if is_unique and all(map(_is_parameter, names)):
        return names, codes
    return (_ROW,), {column: f"{_ROW}[{quoted(column)}]" for column in columns}


def _is_parameter(name: str) -> bool:
    if not name.isidentifier() or unicodedata.normalize("NFKC", name) != name:
        return False
    return not (keyword.iskeyword(name) or name in _TAKEN or name.startswith("_"))


def _parametrized(
    rows: Sequence[Row],
    parameters: Sequence[str],
) -> Iterator[str]:
    if not rows:
        return
    names = ", ".join(map(quoted, parameters))
    if len(parameters) > 1:
        names = f"({names})"
    yield "@pytest.mark.parametrize("
    yield f"    {names},"
    yield "    ["
    ids: set[str] = set()
    for values in dict.fromkeys(row.values for row in rows):
        texts = [printable(cell) for _, cell in values]
        row_id = _free("-".join(texts)[:_LONGEST_NAME] or "empty", ids)
        cells = [quoted(cell) for _, cell in values]
        if tuple(parameters) == (_ROW,):
            cells = [f"{{{', '.join(_pairs(dict(values), {}))}}}"]
        cells.append(f"id={quoted(row_id)}")
        yield from _bracketed("pytest.param(", cells, "),", indent=8)
    yield "    ],"
    yield ")"


def _block(
    step: Step,
    text: str,
    columns: Mapping[str, str],
) -> Iterator[str]:
    """Yield the lines of a step block. ``text`` is the code of its doc string."""
    indent = " " * 8
    if step.table:
        yield from _table(step.table, columns)
    opening = f"with scenario.{step.kind}("
    yield from _bracketed(
        opening,
        [quoted(step.text)],
        "):",
        indent=4,
    )
    if step.table:
        yield f"{indent}for row in table:"
        indent = " " * 12
    if text:
        yield f"{indent}# text: {text}"
    yield f"{indent}scenario.todo()"


def _table(
    table: Sequence[Sequence[str]],
    columns: Mapping[str, str],
) -> Iterator[str]:
    """Yield a list of dicts, or a list of lists if the first row cannot be names."""
    first, *rest = table
    are_distinct = len(set(first)) == len(first)
    has_names = bool(rest) and all(first) and are_distinct
    if not has_names:
        rest = [*table]
    yield "    table = ["
    for row in rest:
        if has_names:
            pairs = _pairs(dict(zip(first, row, strict=True)), columns)
            yield from _bracketed("{", pairs, "},", indent=8)
        else:
            cells = [_filled(cell, columns) for cell in row]
            yield from _bracketed("[", cells, "],", indent=8)
    yield "    ]"


def _bracketed(
    opening: str,
    items: Iterable[str],
    closing: str,
    *,
    indent: int = 0,
) -> list[str]:
    """Return the items in one line if they fit. Otherwise each item has a line."""
    items = [*items]
    margin = " " * indent
    line = f"{margin}{opening}{', '.join(items)}{closing}"
    if len(line) <= _WIDTH or not items:
        return [line]
    inner = [f"{margin}    {item}," for item in items]
    return [f"{margin}{opening}", *inner, f"{margin}{closing}"]


def _pairs(
    row: Mapping[str, str],
    columns: Mapping[str, str],
) -> list[str]:
    return [f"{quoted(name)}: {_filled(cell, columns)}" for name, cell in row.items()]


def _filled(text: str, columns: Mapping[str, str]) -> str:
    """Return the code for a text with placeholders of an Outline."""
    column = text[1:-1]
    if text == f"<{column}>" and column in columns:
        return columns[column]
    return quoted(text) + _replacements(text, columns)


def _replacements(text: str, columns: Mapping[str, str]) -> str:
    """Return the code that replaces the placeholders by the values of a row."""
    calls = ""
    for column, code in columns.items():
        placeholder = f"<{column}>"
        if placeholder in text:
            calls += f".replace({quoted(placeholder)}, {code})"
    return calls


def in_triple_quotes(text: str) -> str:
    """Return the code for a text between triple quotes, with the same lines."""
    lines = []
    for line in text.split("\n"):
        code = printable(line.replace("\\", r"\\"))
        lines.append(re.sub(r" $", r"\\x20", code))
    return re.sub(r'"(?="")|"\Z', r"\"", "\n".join(lines))


def slug(text: str) -> str:
    """Return small ASCII words, joined by ``_``, for the name of a file or a function.

    A text that loses letters gets its hash. So names in another alphabet stay different:
    ``Ein Käse`` is ``ein_kase``, ``Битва 1`` is ``1_e8334cae``.
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    plain = re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text))
    plain = re.sub(r"[^\w\s]|_", " ", plain)  # a text that loses signs needs no hash
    words = "_".join(re.findall(r"[a-z0-9]+", plain.lower()))
    if words and plain.isascii() and len(words) <= _LONGEST_NAME:
        return words
    return slug_with_hash(words, text)


def slug_with_hash(words: str, text: str) -> str:
    """Return words with a hash of the text."""
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    words = words[:_LONGEST_NAME].rstrip("_")
    if words:
        return f"{words}_{digest}"
    return digest


def _free(name: str, taken: set[str]) -> str:
    """Return the name, with a number if it is taken, and add it to the taken names."""
    free = name
    number = 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
