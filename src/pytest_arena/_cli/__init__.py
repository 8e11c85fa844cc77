"""What does the command ``arena`` do?"""

from pytest_arena._cli._main import main

__all__ = ["main"]
