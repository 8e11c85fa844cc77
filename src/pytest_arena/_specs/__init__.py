"""What do the specifications say?"""

from pytest_arena._specs._values import Feature, Kind, Problem, Row, Scenario, Specification, Step

__all__ = ["Feature", "Kind", "Problem", "Row", "Scenario", "Specification", "Step"]
