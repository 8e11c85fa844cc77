"""A module is changed whenever it is loaded, and looks as if nothing had happened."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING

import pytest

from pytest_arena import _interpreter
from pytest_arena._interpreter import when_imported

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

NAME = "arena_changes_this"


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "__init__.py").write_text("from .inner import value\ncount = 0\n")
    (tmp_path / NAME / "inner.py").write_text("value = 'original'\n\ndef f():\n    return value\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(_interpreter._finder, "changes", {})
    for name in (NAME, f"{NAME}.inner"):
        monkeypatch.setitem(sys.modules, name, sys)  # so that it is taken out again
        del sys.modules[name]


def change(module: ModuleType) -> None:
    """What is done to the module."""
    module.__dict__["value"] = "changed"


def test_it_is_changed_when_somebody_imports_it() -> None:
    """Before whoever imports it sees it, and not before that."""
    when_imported(f"{NAME}.inner", change)
    assert NAME not in sys.modules
    assert importlib.import_module(NAME).value == "changed"


def test_it_is_changed_at_once_where_it_is_loaded() -> None:
    """By a plugin that came first."""
    inner = importlib.import_module(f"{NAME}.inner")
    when_imported(f"{NAME}.inner", change)
    assert inner.value == "changed"


def test_the_module_shows_its_own_loader() -> None:
    """Which is asked for its source, its files and its path."""
    when_imported(f"{NAME}.inner", change)
    inner = importlib.import_module(f"{NAME}.inner")
    assert inner.__spec__ is not None
    assert type(inner.__loader__) is type(inner.__spec__.loader) is SourceFileLoader
    assert "return value" in inspect.getsource(inner.f)
    found = importlib.util.find_spec(NAME)
    assert found is not None
    assert type(found.loader) is SourceFileLoader
