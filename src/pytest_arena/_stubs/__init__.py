"""What would a test of this scenario look like?"""

from __future__ import annotations

from pytest_arena._stubs._features import stubs
from pytest_arena._stubs._files import StubFile
from pytest_arena._stubs._markers import Marker, markers, test_files

__all__ = ["Marker", "StubFile", "markers", "stubs", "test_files"]
