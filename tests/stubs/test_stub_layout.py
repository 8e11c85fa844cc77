"""Is code laid out as a formatter would, and is every text kept?"""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_arena.scenarios.stubs._layout import Group, comment, in_triple_quotes, laid_out, quoted
from pytest_arena.scenarios.stubs._names import free, identifier, own_slugs, parameter, slug

ODD = [
    "",
    '"',
    "'",
    "\\",
    'a"b\'c"',
    '"""',
    '""""',
    "a\\",
    " ",
    "a \n b",
    "\t\r\x00\x85\u2028",
    "é",
]


@pytest.mark.parametrize("text", ODD)
def test_a_text_is_the_same_in_quotes_and_in_triple_quotes(text: str) -> None:
    """What Python reads is the text that was written."""
    assert ast.literal_eval(quoted(text)) == text
    assert ast.literal_eval(f'"""{in_triple_quotes(text)}"""') == text


@given(st.text())
def test_any_text_is_the_same(text: str) -> None:
    """What Python reads is the text that was written, and no line of it ends in a blank."""
    assert ast.literal_eval(quoted(text)) == text
    code = in_triple_quotes(text)
    assert ast.literal_eval(f'"""{code}"""') == text
    assert not any(line.endswith(" ") for line in code.split("\n"))


@given(st.text())
def test_a_comment_is_one_line(text: str) -> None:
    """Nothing in a comment begins a line of code."""
    assert ast.parse(comment(text, indent=0)).body == []


def test_what_fits_is_one_line_and_all_else_has_an_item_a_line() -> None:
    """88 columns is the most, and the comma after the last item keeps the rest as it is."""
    call = Group("f(", ("a" * 41, "b" * 41), ")")
    assert laid_out(call, after=":") == [f"{call}:"]
    assert len(f"{call}:") == 88
    assert laid_out(call, after="::") == ["f(", f"    {'a' * 41},", f"    {'b' * 41},", ")::"]


def test_letters_of_two_columns_count_as_two() -> None:
    """A formatter counts columns."""
    assert len(laid_out(Group("f(", (quoted("戦" * 41),), ")"))) == 1
    assert len(laid_out(Group("f(", (quoted("戦" * 42),), ")"))) == 3


@pytest.mark.parametrize(
    "text, name",
    [
        ("Test can start a battle", "test_can_start_a_battle"),
        ("  It's 100 %: done!  ", "it_s_100_done"),
        ("Ein Käse", "ein_kase"),
        ("a\N{EN DASH}b", "a_b"),
        ("Битва 1", "1_e8334cae"),
        ("戦い", "c976036f"),
        ("!?", "652ff34c"),
    ],
)
def test_a_slug_is_small_ascii_words(text: str, name: str) -> None:
    """Letters that cannot be written are a hash, of what the text says and not of its blanks."""
    assert slug(text) == slug(f" {text}\t") == name


@given(st.text(), st.text())
def test_a_slug_can_always_be_part_of_a_name(one: str, other: str) -> None:
    """Whatever the text, and no matter how long it is."""
    assert f"test_{slug(one)}".isidentifier()
    assert len(slug(one)) < 80
    assert len(set(own_slugs([one, other]).values())) == len({one, other})


def test_long_names_that_begin_alike_are_two() -> None:
    """A name is cut, and what was cut off is in its hash."""
    assert slug("a" * 200 + "1") != slug("a" * 200 + "2")


@pytest.mark.parametrize(
    "text, name", [("class", "class_"), ("client", "client_"), ("2nd", "_2nd"), ("p %", "p")]
)
def test_a_variable_is_no_keyword_and_no_fixture(text: str, name: str) -> None:
    """Names that mean something else already get a sign."""
    assert identifier(text) == name


def test_no_name_is_given_twice() -> None:
    """The second of one name has a number."""
    assert free("a", taken=["a", "a_2"]) == "a_3"


@pytest.mark.parametrize(
    "column, name",
    [("Total amount", "total_amount"), ("Сумма", "сумма"), ("p %", "p_")]
    + [(column, "") for column in ("class", "client", "2nd", "%", "", "ª", "_a")],
)
def test_a_parameter_has_the_columns_own_name_or_none(column: str, name: str) -> None:
    """A row is found by the names of the parameters."""
    assert parameter(column) == name
