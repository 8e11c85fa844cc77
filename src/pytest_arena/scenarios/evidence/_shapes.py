"""How does a frozen value become JSON, and JSON that value again?"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import EnumMeta
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from pytest_arena.scenarios.evidence import _document, _facts
from pytest_arena.scenarios.specs import Problem, Row, Scenario, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Container

__all__ = ["from_shape", "to_shape"]

# What the modules of values name for the type checker alone.
_NAMES = {
    **{name: getattr(_facts, name) for name in _facts.__all__},
    **{name: getattr(_document, name) for name in _document.__all__},
    **{one.__name__: one for one in (Problem, Row, Scenario, Step)},
}


@dataclass(frozen=True, slots=True)
class _Shape:
    """How values of one type are written and read."""

    write: Callable[[Any], Any] | None
    """None: as it is."""
    read: Callable[[Any], Any]


def to_shape(value: Any, *, but: Container[str] = ()) -> dict[str, Any]:
    """Return a dataclass as what JSON can hold; fields that have their default are left out.

    Pairs of a name and something become an object, other tuples an array. It is what takes most
    of the time of a long list, 25 µs for a scenario with its steps.

    Args:
        value: of whichever frozen class of this room or of the specifications.
        but: names of fields that are left out.
    """
    kind: Any = type(value)
    return {
        name: shape.write(held) if shape.write else held
        for name, shape, default in _plan(kind)
        if (held := getattr(value, name)) is not default and held != default and name not in but
    }


def from_shape(kind: type, raw: Any) -> Any:
    """Return the value of a dataclass again.

    Raises:
        KeyError, TypeError, ValueError: it is not of this shape.
    """
    if not isinstance(raw, dict):
        raise TypeError(f"{kind.__name__} expected, not {raw!r:.40}")
    plan = _plan(kind)
    return kind(
        **{
            name: shape.read(raw[name])
            for name, shape, default in plan
            if default is MISSING or name in raw
        }
    )


@cache
def _plan(kind: Any) -> tuple[tuple[str, _Shape, object], ...]:
    hints = get_type_hints(kind, localns=_NAMES)
    return tuple((one.name, _shape(hints[one.name]), one.default) for one in fields(kind))


@cache
def _shape(hint: Any) -> _Shape:
    if is_dataclass(hint) and isinstance(hint, type):
        return _Shape(to_shape, lambda raw: from_shape(hint, raw))
    if isinstance(hint, EnumMeta):
        return _Shape(lambda value: value.value, hint)
    if get_origin(hint) is tuple:
        return _of_tuple(get_args(hint)[0])
    if NoneType in get_args(hint):
        return _or_none(_shape(next(one for one in get_args(hint) if one is not NoneType)))
    return _Shape(None, _reader(hint))


def _of_tuple(inner: Any) -> _Shape:
    of_pair = get_args(inner) if get_origin(inner) is tuple else ()
    if of_pair and of_pair[-1] is not ...:
        return _Shape(dict, lambda raw: tuple((key, held) for key, held in _items(raw, of_pair[1])))
    shape = _shape(inner)
    write = shape.write
    return _Shape(
        lambda value: [write(one) for one in value] if write else list(value),
        lambda raw: tuple(shape.read(one) for one in _checked(raw, list)),
    )


def _items(raw: Any, kind: type) -> list[tuple[str, Any]]:
    return [(key, _checked(held, kind)) for key, held in _checked(raw, dict).items()]


def _or_none(shape: _Shape) -> _Shape:
    write = shape.write
    return _Shape(
        write and (lambda value: None if value is None else write(value)),
        lambda raw: None if raw is None else shape.read(raw),
    )


def _reader(hint: Any) -> Callable[[Any], Any]:
    if get_origin(hint) is Literal:
        allowed = get_args(hint)
        return lambda raw: allowed[allowed.index(raw)]
    return lambda raw: _checked(raw, hint)


def _checked(raw: Any, kind: type) -> Any:
    if type(raw) is not kind:
        raise TypeError(f"{kind.__name__} expected, not {raw!r:.40}")
    return raw
