"""What do the specifications say?"""

from pytest_arena.scenarios.specs._files import found, read
from pytest_arena.scenarios.specs._index import Index
from pytest_arena.scenarios.specs._literals import literals, paths
from pytest_arena.scenarios.specs._reading import parse
from pytest_arena.scenarios.specs._references import Reference, reference
from pytest_arena.scenarios.specs._revisions import rev_of, similarity, step_lines
from pytest_arena.scenarios.specs._values import (
    Feature,
    Kind,
    Problem,
    Row,
    Scenario,
    Specification,
    Step,
)

__all__ = [
    "Feature",
    "Index",
    "Kind",
    "Problem",
    "Reference",
    "Row",
    "Scenario",
    "Specification",
    "Step",
    "found",
    "literals",
    "parse",
    "paths",
    "read",
    "reference",
    "rev_of",
    "similarity",
    "step_lines",
]
