"""What would a test of this scenario look like, and into which file does it go?"""

from pytest_arena.scenarios.stubs._test_files import StubFile, stubs

__all__ = ["StubFile", "stubs"]
