"""How does every parser of the command look?"""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["SHAPE"]

SHAPE: dict[str, Any] = {
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "allow_abbrev": False,
}
