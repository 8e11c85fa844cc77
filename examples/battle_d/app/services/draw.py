"""Who dances against whom in each phase, and who comes that far."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, count

from app.models import Battle, BattleEntry, Category, Outcome, Performer, Phase, Tournament

POINTS_FOR_A_WIN = 3
POINTS_FOR_A_DRAW = 1
FINALISTS = 2


def draw_battles(tournament: Tournament, phase: Phase) -> list[Battle]:
    """Make the battles of a phase, queued behind those that the tournament has."""
    positions = count(len(tournament.battles) + 1)
    return [
        _make_battle(category, performers, phase=phase, position=next(positions))
        for category in tournament.categories
        for performers in _draw(category, tournament.battles, phase)
    ]


def _make_battle(
    category: Category, performers: Iterable[Performer], *, phase: Phase, position: int
) -> Battle:
    entries = [BattleEntry(performer=each, slot=slot) for slot, each in enumerate(performers, 1)]
    return Battle(category=category, phase=phase, position=position, entries=entries)


def _draw(
    category: Category, battles: Sequence[Battle], phase: Phase
) -> Iterable[Sequence[Performer]]:
    """Group the performers of a category for a phase: pairs, everybody with everybody, the best."""
    if phase is Phase.PRESELECTION:
        return _pair_up(category.performers)
    if phase is Phase.POOLS:
        return combinations(_rank_preselection(category, battles)[: category.places], 2)
    if phase is Phase.FINALS:
        return [_rank_pools(category, battles)[:FINALISTS]]
    return []


def _pair_up(performers: Sequence[Performer]) -> list[list[Performer]]:
    """Take two by two; where one is left over, the last battle has three."""
    pairs = [list(performers[first : first + 2]) for first in range(0, len(performers), 2)]
    if len(performers) % 2 and len(pairs) > 1:
        pairs[-2:] = [pairs[-2] + pairs[-1]]
    return pairs


def _rank_preselection(category: Category, battles: Sequence[Battle]) -> list[Performer]:
    """Order by score; between equals, whoever registered first."""
    scores = Counter(
        {entry.performer_id: entry.score or 0 for entry in _entries(category, battles)}
    )
    return sorted(category.performers, key=lambda performer: -scores[performer.id])


def _rank_pools(category: Category, battles: Sequence[Battle]) -> list[Performer]:
    """Order those who danced in the pools by points; between equals, by preselection."""
    points: Counter[int] = Counter()
    for battle in _battles_in(category, battles, Phase.POOLS):
        points.update(_points(battle))
    ranked = [each for each in _rank_preselection(category, battles) if each.id in points]
    return sorted(ranked, key=lambda performer: -points[performer.id])


def _points(battle: Battle) -> dict[int, int]:
    """Give what each performer of a completed pool battle gets for it."""
    if battle.outcome is Outcome.DRAWN:
        return dict.fromkeys(_performer_ids(battle), POINTS_FOR_A_DRAW)
    return {
        performer_id: POINTS_FOR_A_WIN * (performer_id == battle.winner_id)
        for performer_id in _performer_ids(battle)
    }


def _performer_ids(battle: Battle) -> list[int]:
    return [entry.performer_id for entry in battle.entries]


def _entries(category: Category, battles: Sequence[Battle]) -> Iterator[BattleEntry]:
    for battle in _battles_in(category, battles, Phase.PRESELECTION):
        yield from battle.entries


def _battles_in(category: Category, battles: Sequence[Battle], phase: Phase) -> Iterator[Battle]:
    for battle in battles:
        if battle.category_id == category.id and battle.phase is phase:
            yield battle
