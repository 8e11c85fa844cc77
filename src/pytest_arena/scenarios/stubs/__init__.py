"""What would a test of this scenario look like?"""

from __future__ import annotations

from pytest_arena.scenarios.stubs._features import stubs
from pytest_arena.scenarios.stubs._files import StubFile
from pytest_arena.scenarios.stubs._markers import Binding, Marker, bindings, markers, python_files

__all__ = ["Binding", "Marker", "StubFile", "bindings", "markers", "python_files", "stubs"]
