"""Fixtures that are requested late, inside of others, or that fail."""

import pytest
from conftest import rows, write

LOG = []


@pytest.fixture(scope="module")
def inner(arena):
    write(arena, "inner")
    yield
    write(arena, "end of inner")


@pytest.fixture(scope="module")
def outer(arena, request):
    write(arena, "outer")
    request.getfixturevalue("inner")
    write(arena, "outer too")


@pytest.fixture(scope="class")
def half(arena, request):
    request.addfinalizer(lambda: write(arena, "after half"))
    write(arena, "half")
    raise LookupError("half-way")


@pytest.fixture(scope="class")
def half_after_another(arena, request):
    write(arena, "half")
    request.getfixturevalue("of_class")
    raise LookupError("half-way")


@pytest.fixture(scope="class")
def of_class(arena):
    write(arena, "of class")


class TestBroken:
    @pytest.mark.parametrize("name", ["half", "half_after_another", "half"])
    @pytest.mark.expect("LookupError")
    def test_a_set_up_that_fails(self, request, name):
        request.getfixturevalue(name)

    @pytest.mark.expect("LookupError")
    def test_a_set_up_that_fails_before_the_test(self, half):
        pass

    def test_nothing_of_it_is_left(self, found):
        assert found == []


@pytest.fixture(scope="class")
def tear_down(arena):
    write(arena, "set-up")
    yield
    write(arena, "before it failed")
    raise LookupError("at the end")


class TestTearDown:
    @pytest.mark.expect("LookupError")
    def test_a_tear_down_that_fails(self, tear_down, found):
        assert found == ["set-up"]


def test_nothing_of_it_is_left(found):
    assert found == []


def test_a_fixture_that_requests_another(outer, found, turn):
    assert found == ["outer", "inner", "outer too"]


@pytest.fixture(scope="module")
def late(arena):
    LOG.append("set-up")
    write(arena, "late")


def test_a_fixture_that_a_test_requests_before_it_writes(request, arena):
    request.getfixturevalue("late")
    assert rows(arena) == ["outer", "inner", "outer too", "late"]


def test_it_lives_on(arena, late, found):
    assert found == ["outer", "inner", "outer too", "late"]
    assert LOG == ["set-up"]


@pytest.fixture(scope="module")
def later(arena):
    LOG.append("later")
    write(arena, "later")


def test_a_fixture_that_a_test_requests_after_it_has_written(request, arena):
    write(arena, "mine")
    request.getfixturevalue("later")
    assert rows(arena)[3:] == ["late", "mine", "later"]


def test_its_rows_have_ended_with_the_test(found):
    assert found[3:] == ["late"]


def test_it_is_set_up_again(later, found, turn):
    assert found[3:] == ["late", "later"]
    assert LOG.count("later") == 2
