"""The variables of the environment come back at the end of a test, and of a wide fixture."""

import importlib
import os
import sys

import pytest


@pytest.fixture(scope="module")
def of_module():
    os.environ["MODULE"] = "set"
    yield
    assert os.environ["MODULE"] == "set"


@pytest.fixture
def of_fixture():
    os.environ["FIXTURE"] = "set"
    yield
    assert os.environ["FIXTURE"] == "set"


def test_a_test_sets_and_deletes_variables(of_module, of_fixture, tmp_path, monkeypatch):
    os.environ["TEST"] = "set"
    os.environ["MODULE"] = "other"
    del os.environ["HOME"]
    text = "import os\nos.environ |= {'IMPORT': 'set', 'UNSET_URL': 'sqlite:///second.db'}\n"
    (tmp_path / "sets_at_import.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("sets_at_import")
    assert os.environ["IMPORT"] == "set"


def test_the_next_test_has_the_variables_of_its_fixtures_and_imports(of_module):
    assert "TEST" not in os.environ
    assert "FIXTURE" not in os.environ
    assert os.environ["HOME"]
    assert os.environ["MODULE"] == "set"
    assert "sets_at_import" in sys.modules
    assert os.environ["IMPORT"] == "set"
    assert "UNSET_URL" in os.environ


@pytest.mark.expect("LookupError", at="FAILURES.pop()")
def test_an_import_replaces_the_url_of_the_app(tmp_path, monkeypatch, failures):
    failures.append(LookupError())  # at the end of the test
    text = "import os\nos.environ['DATABASE_URL'] = 'sqlite+aiosqlite:///theirs.db'\n"
    (tmp_path / "sets_the_url.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("sets_the_url")
    assert "theirs" in os.environ["DATABASE_URL"]


def test_the_next_test_has_the_url_of_its_database():
    assert "theirs" not in os.environ["DATABASE_URL"]


def test_a_wide_fixture_that_a_test_requests_late(request, monkeypatch):
    monkeypatch.setenv("TEST", "before")
    request.getfixturevalue("late")
    assert os.environ["TEST"] == "before"
    os.environ["AFTER"] = "set"


@pytest.fixture(scope="module")
def late():
    os.environ["LATE"] = "set"


def test_the_next_test_has_what_the_late_fixture_set(late):
    assert "AFTER" not in os.environ
    assert os.environ["LATE"] == "set"
