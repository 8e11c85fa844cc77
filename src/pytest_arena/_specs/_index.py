"""Which scenario is meant by a name, and how is it named in a test?"""

from __future__ import annotations

import json
from collections import defaultdict
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pytest_arena._specs._revisions import canonical, similarity, step_lines
from pytest_arena._specs._rows import row_proven
from pytest_arena.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_arena._specs._references import Reference
    from pytest_arena._specs._values import Scenario, Specification

__all__ = ["Index"]

_LIKE = 0.6
"""How like two scenarios are if one has become the other. Others are below 0.5."""
_CANDIDATES = 20
_SHOWN = 3


class Index:
    """Finds scenarios by what tests call them.

    Args:
        specification: all that was read.
        known: what was reviewed, from the lock file: of each key its version and its step lines.
            By these a scenario that was renamed is found again.
    """

    def __init__(
        self,
        specification: Specification,
        known: Mapping[str, tuple[str, tuple[str, ...]]] | None = None,
    ) -> None:
        self._scenarios = specification.scenarios
        self._files = specification.files
        self._known = known or {}
        self._by_key = {one.key: one for one in reversed(self._scenarios)}
        self._by_name: dict[str, list[Scenario]] = defaultdict(list)
        for one in self._scenarios:
            for name in _names(one):
                self._by_name[name].append(one)

    def scenario(self, key: str) -> Scenario | None:
        """Return the scenario of this key, or None."""
        return self._by_key.get(key)

    def find(self, reference: Reference) -> Scenario:
        """Return the scenario that a test means.

        Raises:
            ScenarioError: there is none (with the nearest names, or the marker to paste where it
                was renamed), or more than one (with all places).
        """
        meant = self._meant(canonical(reference.name))
        if reference.spec:
            self._check_file(reference)
            meant = [one for one in meant if _is_in(one.spec, reference.spec)]
        if len(meant) == 1:
            return meant[0]
        raise self._ambiguous(reference, meant) if meant else self._unknown(reference)

    def renamed(self, reference: Reference) -> Scenario | None:
        """Return what a name that no scenario has any more has become, or None.

        It has the steps which were reviewed under that name, or nearly so.
        """
        if self._meant(canonical(reference.name)):
            return None
        rev, lines = self._reviewed(reference)
        new = [one for one in self._scenarios if one.key not in self._known]
        same = [one for one in new if rev and one.rev == rev]
        if same:
            return same[0] if len(same) == 1 else None
        likest = sorted(new, key=lambda one: -_shared(step_lines(one), lines))[:_CANDIDATES]
        rated = [(similarity(step_lines(one), lines), one.key, one) for one in likest if lines]
        best = max(rated, default=None, key=lambda each: each[:2])
        return best[2] if best and best[0] > _LIKE else None

    def rows(
        self, scenario: Scenario, reference: Reference, params: Mapping[str, object]
    ) -> tuple[tuple[str, str], ...]:
        """Return the row that a test with these parameters proves; nothing means all of them.

        Raises:
            ScenarioError: the values that were given are those of no row, or of more than one.
        """
        if not scenario.rows and not reference.row:
            return ()
        return row_proven(scenario, reference, params)

    def marker(
        self, scenario: Scenario, *, rev: str = "", row: tuple[tuple[str, str], ...] = ()
    ) -> str:
        """Return the decorator to paste, by the shortest name that means this scenario alone."""
        names = _names(scenario)
        name = next((one for one in names if self._meant(one) == [scenario]), "")
        told = [_quoted(name or names[-1])]
        if not name:
            told.append(f"spec={_quoted(scenario.spec)}")
        if rev:
            told.append(f"rev={_quoted(rev)}")
        if row:
            pairs = ", ".join(f"{_quoted(column)}: {_quoted(value)}" for column, value in row)
            told.append(f"row={{{pairs}}}")
        return f"@pytest.mark.scenario({', '.join(told)})"

    def _meant(self, name: str) -> list[Scenario]:
        """Those of this name; a whole name goes before one that leaves the rule out."""
        meant = self._by_name.get(name, [])
        whole = [one for one in meant if _names(one)[-1] == name or one.key == name]
        return whole if len(whole) == 1 else meant

    def _check_file(self, reference: Reference) -> None:
        if any(_is_in(path, reference.spec) for path in self._files):
            return
        near = get_close_matches(reference.spec, self._files, n=_SHOWN, cutoff=0.3)
        raise ScenarioError(
            f"no specification is called {reference.spec!r}",
            why="the test proves a scenario that is nowhere written down",
            cause=reference.place or "the marker",
            fix="\n".join(f"spec={_quoted(one)}" for one in near) or "leave spec= out",
        )

    def _ambiguous(self, reference: Reference, meant: Sequence[Scenario]) -> ScenarioError:
        places = [f"{one.place}  {one.key}" for one in meant]
        markers = [self.marker(one) for one in meant]
        if len({one.key for one in meant}) < len(meant):
            markers = ["rename one of them, or give each a tag of its own, such as @SHOP-1"]
        return ScenarioError(
            f"{len(meant)} scenarios are called {reference.name!r}" + _asked(reference),
            why="nobody can say which of them the test proves",
            cause="\n".join(places),
            fix="\n".join(markers),
        )

    def _unknown(self, reference: Reference) -> ScenarioError:
        what = f"no scenario is called {reference.name!r}" + _asked(reference)
        why = "the test proves nothing that is written down"
        cause = reference.place or "the marker"
        if renamed := self.renamed(reference):
            return ScenarioError(
                f"{what}; it was renamed to {renamed.name!r}",
                why=why,
                cause=f"{cause}\n{renamed.place}  {renamed.key}",
                fix=self.marker(renamed, rev=reference.rev and renamed.rev),
            )
        near = self._nearest(reference)
        return ScenarioError(
            what,
            why=why,
            cause="\n".join([cause, *(f"{one.place}  {one.name}" for one in near)]),
            fix="\n".join(self.marker(one) for one in near) or "arena scenarios list",
        )

    def _reviewed(self, reference: Reference) -> tuple[str, tuple[str, ...]]:
        name = canonical(reference.name)
        keys = [name, *(key for key in self._known if key.rpartition(" :: ")[2] == name)]
        known = next((self._known[key] for key in keys if key in self._known), ("", ()))
        return (known[0] or reference.rev, known[1])

    def _nearest(self, reference: Reference) -> list[Scenario]:
        folded: dict[str, Scenario] = {}
        for name, scenarios in self._by_name.items():
            folded.setdefault(name.casefold(), scenarios[0])
        wanted = canonical(reference.name).casefold()
        near = get_close_matches(wanted, folded, n=2 * _SHOWN, cutoff=_LIKE)
        near += [name for name in folded if wanted in name][:_SHOWN]
        return list({folded[name].key: folded[name] for name in near}.values())[:_SHOWN]


def _names(scenario: Scenario) -> list[str]:
    """What a scenario may be called, the shortest first, the whole name last."""
    longer = [scenario.feature, scenario.name]
    longest = [scenario.feature, scenario.rule, scenario.name]
    names = [scenario.name, *(" :: ".join(filter(None, one)) for one in (longer, longest))]
    ids = [scenario.key] if scenario.key.startswith("@") else []
    return list(dict.fromkeys([*ids, *names]))


def _is_in(path: str, asked: str) -> bool:
    return path == asked or path.endswith("/" + asked)


def _shared(these: Sequence[str], those: Sequence[str]) -> float:
    words, others = set(_words(these)), set(_words(those))
    return len(words & others) / (len(words | others) or 1)


def _words(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield from line.split()


def _asked(reference: Reference) -> str:
    return f" in {reference.spec}" if reference.spec else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
