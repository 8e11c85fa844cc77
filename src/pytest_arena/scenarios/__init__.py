"""Scenarios of specifications, and the tests that prove them. Optional.

Only a run with specifications imports this package, because it needs further libraries.
"""

from pytest_arena.errors import ConfigError


def require_extra(place: str) -> None:
    """Check that the libraries for scenarios are installed, which an option or a command needs."""
    try:
        import gherkin  # noqa: F401, PLC0415
        import markdown_it  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(
            f"scenarios need a library that is not installed: {error.name}",
            why="without it no specification is read, and the run could pass unchecked",
            cause=f"{place} needs it",
            fix='pip install "pytest-arena[scenarios]"',
        ) from None
