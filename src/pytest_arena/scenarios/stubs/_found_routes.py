"""Which route of the app does a path in a step mean?"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._values import Route

__all__ = ["find_route", "nearest_route"]

# A part that stands for a value: ``{battle_id}``, ``{rest:path}``, ``<id>``, ``:id``.
_VALUE = re.compile(r"\{[^}]*\}|<[^>]*>|^:\w+")


def find_route(verb: str, path: str, routes: Sequence[Route]) -> Route | None:
    """Return the route that a request would reach, None where there is none.

    Without a verb GET is preferred. Parts in braces are any value, in the step as in the route.
    """
    fitting = [one for one in routes if verb in {"", one.method} and _fits(path, one.path)]
    return max(fitting, key=lambda one: (_alike(path, one.path), one.method == "GET"), default=None)


def nearest_route(verb: str, path: str, routes: Sequence[Route]) -> Route | None:
    """Return the route that was likely meant by a path that leads nowhere."""
    names = [f"{one.method if verb else ''} {_plain(one.path)}" for one in routes]
    close = difflib.get_close_matches(f"{verb} {_plain(path)}", names, n=1)
    return routes[names.index(close[0])] if close else None


def _fits(path: str, template: str) -> bool:
    parts, wanted = _parts(path), _parts(template)
    if wanted[-1].endswith(":path}") and len(parts) >= len(wanted):
        parts, wanted = parts[: len(wanted) - 1], wanted[:-1]
    return len(parts) == len(wanted) and all(map(_is_same, parts, wanted))


def _is_same(part: str, wanted: str) -> bool:
    return part == wanted or bool(_VALUE.search(wanted)) or bool(_VALUE.search(part))


def _alike(path: str, template: str) -> int:
    """How many parts are the same: ``/me`` is meant rather than ``/{name}``."""
    return sum(_plain(one) == _plain(other) for one, other in _pairs(path, template))


def _pairs(path: str, template: str) -> list[tuple[str, str]]:
    return list(zip(_parts(path), _parts(template), strict=False))


def _parts(path: str) -> list[str]:
    return path.partition("?")[0].strip("/").split("/")


def _plain(path: str) -> str:
    return _VALUE.sub("{}", path.partition("?")[0])
