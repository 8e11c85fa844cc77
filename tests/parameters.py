"""Parameters of a story, of which `make test` runs a few, and `make test-full` all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def slow_except(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Make a parameter of each value; all but the quick ones are slow.

    Raises:
        ValueError: a quick one is not among the values.
    """
    parameters = []
    left = list(quick)
    for value in values:
        if value in quick:
            left.remove(value)
            parameters.append(pytest.param(value))
        else:
            parameters.append(pytest.param(value, marks=pytest.mark.slow))
    if left:
        raise ValueError(f"not among the values: {left}")
    return parameters
