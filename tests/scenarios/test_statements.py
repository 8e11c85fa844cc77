"""What is asserted is read from the line itself where that is certain, else from its syntax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena.scenarios.assertions._assertions import statement

if TYPE_CHECKING:
    from pathlib import Path

READ = {
    'assert made["name"] == "Sand"': 'made["name"] == "Sand"',
    "assert  x": "x",
    'assert x == 1, "why"': "x == 1",
    "assert f(a, b) == c": "f(a, b) == c",
    "assert (x == 1)": "x == 1",
    "assert (a) == b": "(a) == b",
    "assert x  # why": "x",
    "assert x; y = 1": "x",
    'assert x == "# no, comment; here"': 'x == "# no, comment; here"',
    'assert x == "it\'s"': 'x == "it\'s"',
    r'assert x == "a\"b"': r'x == "a\"b"',
    """assert x == 'a"b'""": """x == 'a"b'""",
    'assert f(")"\n    + x)': 'f(")"\n    + x)',
    'assert x == """a\nb"""': 'x == """a\nb"""',
    "assert x == \\\n    y": "x == \\\n    y",
    "assert x == [\n    1\n]": "x == [\n    1\n]",
    "assert x[0] == [\n    1\n]": "x[0] == [\n    1\n]",
    "assert x == '['": "x == '['",
    "assert (a ==\n    b), f'{a} ('": "a ==\n    b",
    "assert a  # (": "a",
    "assert a; assert b": "(a) and (b)",
    "else: assert a": "a",
    "with pytest.raises(KeyError):": "with pytest.raises(KeyError):",
    "async with call(\n    1,\n):": "async with call(\n    1,\n):",
    "self.assertEqual(\n    a,\n    b)": "self.assertEqual(\n    a,\n    b)",
    "": "",
}


@pytest.mark.parametrize("lines", READ)
def test_what_an_assertion_asserts_is_all_of_it_and_nothing_else(
    lines: str, tmp_path: Path
) -> None:
    """Wherever it ends, and whatever stands behind it."""
    file = tmp_path / "test_it.py"
    file.write_text(f"    {lines}\n    done()\n")

    assert statement(str(file), 1) == READ[lines]
