"""In which forms is a document of scenarios handed out?"""

from pytest_arena.scenarios.outputs._github import workflow_commands
from pytest_arena.scenarios.outputs._targets import FORMS, Target, targets, write
from pytest_arena.scenarios.outputs._terminal import lines

__all__ = ["FORMS", "Target", "lines", "targets", "workflow_commands", "write"]
