"""What do the specifications say?"""

from pytest_arena.scenarios.specs._fences import is_gherkin, without_front_matter
from pytest_arena.scenarios.specs._index import Index
from pytest_arena.scenarios.specs._reader import files_in, parse, read, require_scenarios
from pytest_arena.scenarios.specs._references import Reference, reference, row_proven
from pytest_arena.scenarios.specs._specification import (
    Feature,
    Kind,
    Problem,
    Row,
    ScenarioSpec,
    Specification,
    Step,
    literals,
    paths,
    rev_of,
    similarity,
    step_lines,
)

__all__ = [
    "Feature",
    "Index",
    "Kind",
    "Problem",
    "Reference",
    "Row",
    "ScenarioSpec",
    "Specification",
    "Step",
    "files_in",
    "is_gherkin",
    "literals",
    "parse",
    "paths",
    "read",
    "reference",
    "require_scenarios",
    "rev_of",
    "row_proven",
    "similarity",
    "step_lines",
    "without_front_matter",
]
