"""In which forms are scenarios handed out: documents, pages, lines, tests to be written?"""

from pytest_arena.scenarios.outputs._ci import workflow_commands
from pytest_arena.scenarios.outputs._targets import FORMS, OutputTarget, targets, write
from pytest_arena.scenarios.outputs._terminal import explained, lines, listing

__all__ = [
    "FORMS",
    "OutputTarget",
    "explained",
    "lines",
    "listing",
    "targets",
    "workflow_commands",
    "write",
]
