"""The wing of scenarios: what is specified, which test proves it, and what is told of that.

Imported only where a run has specifications: what it needs to read them costs nobody else.
"""

from importlib.util import find_spec

from pytest_arena.errors import ConfigError

__all__ = ["FORMS", "require_extra"]

FORMS = {
    "json": ("scenarios.json", "scenarios as JSON"),
    "html": ("scenarios.html", "scenarios as a page"),
    "md": ("scenarios.md", "scenarios as Markdown"),
    "messages": ("scenarios.ndjson", "scenarios as Cucumber messages"),
}
"""The usual file of each form of output, and what it is called."""

_LIBRARIES = {
    "gherkin": "gherkin-official",
    "markdown_it": "markdown-it-py",
    "jinja2": "jinja2",
}


def require_extra(place: str) -> None:
    """Check that what reads and shows specifications is installed.

    ``place`` is where scenarios are asked for: an option, a command.

    Raises:
        ConfigError: it is not. A run that passes them over would look green.
    """
    lacking = [name for module, name in _LIBRARIES.items() if find_spec(module) is None]
    if lacking:
        raise ConfigError(
            f"scenarios need what is not installed: {', '.join(lacking)}",
            why="without it no specification can be read, and the run would look green",
            cause=f"{place} asks for scenarios",
            fix='pip install "pytest-arena[scenarios]"',
        )
