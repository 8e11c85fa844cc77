"""Scenarios of specifications, and the tests that prove them. Optional.

Only a run with specifications imports this package, because it needs further libraries.
"""

from importlib.util import find_spec

from pytest_arena.errors import ConfigError

__all__ = ["require_extra"]

_LIBRARIES = {"gherkin": "gherkin-official", "markdown_it": "markdown-it-py"}


def require_extra(place: str) -> None:
    """Check that the libraries for scenarios are installed.

    Args:
        place: the option or the command that needs them.

    Raises:
        ConfigError: a library is missing.
    """
    lacking = [name for module, name in _LIBRARIES.items() if find_spec(module) is None]
    if lacking:
        raise ConfigError(
            f"scenarios need libraries that are not installed: {', '.join(lacking)}",
            why="without them no specification is read, and the run could pass unchecked",
            cause=f"{place} needs them",
            fix='pip install "pytest-arena[scenarios]"',
        )
