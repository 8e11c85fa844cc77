"""Which scenario does a test prove, and what did the test do in this run?

Imported only where a run has specifications: what it needs to read them costs nobody else.
"""

from pytest_arena._scenarios._assertions import enable
from pytest_arena._scenarios._run import Scenarios

__all__ = ["Scenarios", "enable"]
