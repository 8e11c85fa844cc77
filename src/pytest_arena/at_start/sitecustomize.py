"""Python imports this module when it starts, if a test has started it."""

import sys
from contextlib import suppress
from pathlib import Path

this = sys.modules.pop("sitecustomize")
here = str(Path(__file__).parent)
others = [path for path in sys.path if path != here]
own, sys.path[:] = sys.path[:], others
try:
    # The module of this name that Python would have found.
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
except ImportError:
    sys.modules["sitecustomize"] = this
sys.path[:] = own

with suppress(ImportError):  # an environment without pytest-arena
    from pytest_arena import _program

    _program.begin()
