"""Which scenarios does a test say that it proves?"""

from __future__ import annotations

import linecache
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios._bdd import EXAMPLE, template_of
from pytest_arena.scenarios._sent import relative
from pytest_arena.scenarios._sources import Sources
from pytest_arena.scenarios.evidence import Mapping
from pytest_arena.scenarios.specs import (
    Index,
    Problem,
    Reference,
    Scenario,
    Specification,
    reference,
    row_proven,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_arena.scenarios._bdd import Template

__all__ = ["Mapped", "Mapper"]


@dataclass(frozen=True, slots=True)
class Mapped:
    """One test and what its markers mean."""

    item: Any  # held, so that nothing else can come to have its identity
    test: str
    """Its node id at collection: another plugin may change it afterwards."""
    mappings: tuple[Mapping, ...]
    scenarios: tuple[Scenario, ...]
    error: ScenarioError | None
    orphans: tuple[Problem, ...]


class Mapper:
    """Reads the markers of tests; pytest-bdd's tests need none."""

    def __init__(self, specification: Specification, index: Index, root: Path) -> None:
        self._index, self._root = index, root
        self._files = frozenset(specification.files)
        self._sources = Sources()
        self._items: Sequence[Any] = ()
        self._named: frozenset[str] | None = None

    def all_of(self, items: Sequence[Any]) -> list[Mapped]:
        """Return those of these tests that say that they prove something."""
        self._items, self._named = items, None
        return [one for item in items if (one := self.mapped(item)) is not None]

    def _named_by_all(self) -> frozenset[str]:
        """The keys that tests name. Only for whom has none, who means one of the others."""
        if self._named is None:
            self._named = frozenset(self._keys())
        return self._named

    def _keys(self) -> Iterator[str]:
        for item in self._items:
            template = template_of(item)
            names = [template.name] if template is not None else []
            names += [str(one.args[0]) for one in item.iter_markers("scenario") if one.args]
            found = (self._index.only(Reference(name=name)) for name in names)
            yield from (one.key for one in found if one is not None)

    def mapped(self, item: Any) -> Mapped | None:
        """Return what a test says that it proves; None where it says nothing of the kind."""
        markers, template = list(item.iter_markers("scenario")), template_of(item)
        if not markers and template is None:
            return None
        found: list[tuple[Mapping, Scenario]] = []
        errors: list[ScenarioError] = []
        place = f"{_place(item)}  {_first_line(item)}".strip()
        for marker in markers:
            try:
                found.append(self._found(item, reference(marker.args, marker.kwargs, place=place)))
            except ScenarioError as error:
                errors.append(error)
        if template is not None:
            found += self._of_bdd(item, template, place)
        if not found and not errors:
            return None
        return Mapped(
            item=item,
            test=item.nodeid,
            mappings=tuple(dict.fromkeys(mapping for mapping, _ in found)),
            scenarios=tuple({scenario.key: scenario for _, scenario in found}.values()),
            error=errors[0] if errors else None,
            orphans=tuple(self._orphan(item, error) for error in errors),
        )

    def _found(self, item: Any, wanted: Reference) -> tuple[Mapping, Scenario]:
        scenario = self._index.only(wanted)
        if scenario is None:
            scenario = self._index.find(wanted, named=self._named_by_all())
        mapping = Mapping(
            test=item.nodeid,
            place=_place(item),
            scenario=scenario.key,
            row=row_proven(scenario, wanted, _parameters(item)),
            rev=wanted.rev,
            source=self._sources.of(item),
        )
        return mapping, scenario

    def _of_bdd(
        self, item: Any, template: Template, place: str
    ) -> Iterator[tuple[Mapping, Scenario]]:
        spec = relative(template.file, self._root)
        if spec not in self._files:
            return
        try:
            yield self._found(item, Reference(name=template.name, spec=spec, place=place))
        except ScenarioError:
            return  # a malformed one, which is reported where it stands: the test is not at fault

    def _orphan(self, item: Any, error: ScenarioError) -> Problem:
        file, _, line = _place(item).rpartition(":")
        return Problem(spec=file, line=int(line), what=error.what, hint=error.fix)


def _place(item: Any) -> str:
    file, line, _ = item.location
    return f"{file}:{(line or 0) + 1}".replace("\\", "/")


def _first_line(item: Any) -> str:
    return linecache.getline(str(item.path), (item.location[1] or 0) + 1).strip()


def _parameters(item: Any) -> dict[str, object]:
    """The values that the test was parametrised with; pytest-bdd's row is one of them."""
    callspec = getattr(item, "callspec", None)
    values = dict(callspec.params) if callspec is not None else {}
    row = values.pop(EXAMPLE, {})
    return {**values, **row} if isinstance(row, dict) else values
