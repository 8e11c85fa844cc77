"""How is Gherkin read by the official parser, and what has it to say?

The only place that knows the package ``gherkin-official``: its majors come often, and change what
they return.
"""

from pytest_arena.scenarios.specs.gherkin._languages import (
    Language,
    language,
    languages,
    nearest_language,
)
from pytest_arena.scenarios.specs.gherkin._tree import Fault, Node, Tree, grown

__all__ = [
    "Fault",
    "Language",
    "Node",
    "Tree",
    "grown",
    "language",
    "languages",
    "nearest_language",
]
