"""The command `arena`."""

from pytest_arena._cli._main import main

__all__ = ["main"]
