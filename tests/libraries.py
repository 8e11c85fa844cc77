"""What do the libraries lack that the suite runs with?"""

from __future__ import annotations

from importlib.metadata import version

from packaging.version import Version

# Before, a connection whose `rollback` was cancelled came back to its pool when it was collected.
GIVES_BACK_WHAT_IS_CANCELLED = Version(version("sqlalchemy")) >= Version("2.0.55")
