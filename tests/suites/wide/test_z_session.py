"""What session fixtures wrote lives until the end, so these tests are the last ones."""

import pytest
from conftest import write


def test_no_module_has_left_anything(found):
    assert found == []


@pytest.fixture(scope="session")
def of_session(arena):
    write(arena, "session")
    yield
    write(arena, "end of session")


@pytest.fixture(scope="package")
def of_package(arena, of_session):
    write(arena, "package")


def test_a_session_and_a_package(of_package, found, turn):
    assert found == ["session", "package"]


def test_it_lives_where_no_test_requests_it(found):
    assert found == ["session", "package"]
