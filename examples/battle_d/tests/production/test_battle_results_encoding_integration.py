"""Encoding the results of battles over real sessions: everything is stored, or nothing."""

import pytest

from app.db.database import async_session_maker
from app.errors import InvalidInputError, RuleBrokenError
from app.models import Battle, BattleEntry, BattleStatus, Outcome, Phase
from app.services import BattleService
from tests.factories import a_battle, a_category, a_tournament


async def test_scores_complete_a_preselection_battle() -> None:
    """Each performer has the score that was written for them."""
    ruby, flow = await _save_battle(Phase.PRESELECTION)

    await _encode(ruby.battle_id, {_score(ruby): "87", _score(flow): "79"})

    battle = await _load(ruby.battle_id)
    assert (battle.status, battle.outcome) == (BattleStatus.COMPLETED, Outcome.SCORED)
    assert [entry.score for entry in battle.entries] == [87, 79]


@pytest.mark.parametrize("written", ["101", "8.5", ""])
async def test_score_that_is_none_stores_nothing(written: str) -> None:
    """Only whole numbers from 0 to 100 are scores; beside a wrong one a good one is lost, too."""
    ruby, flow = await _save_battle(Phase.PRESELECTION)

    with pytest.raises(InvalidInputError, match="Flow needs a score from 0 to 100"):
        await _encode(ruby.battle_id, {_score(ruby): "87", _score(flow): written})

    battle = await _load(ruby.battle_id)
    assert battle.status is BattleStatus.ACTIVE
    assert [entry.score for entry in battle.entries] == [None, None]


async def test_pool_battle_has_a_winner() -> None:
    """The winner of a pool battle is stored, and can be read by name."""
    _, flow = await _save_battle(Phase.POOLS)

    await _encode(flow.battle_id, {"winner": str(flow.performer_id)})

    battle = await _load(flow.battle_id)
    assert battle.outcome is Outcome.WON
    assert battle.winner
    assert battle.winner.dancer.blaze == "Flow"


async def test_final_is_no_draw() -> None:
    """What a pool battle may be, a final may not."""
    in_the_pools, _ = await _save_battle(Phase.POOLS)
    in_the_final, _ = await _save_battle(Phase.FINALS)

    await _encode(in_the_pools.battle_id, {"winner": "draw"})
    with pytest.raises(InvalidInputError, match="Choose who won the battle Ruby vs Flow"):
        await _encode(in_the_final.battle_id, {"winner": "draw"})

    assert (await _load(in_the_pools.battle_id)).outcome is Outcome.DRAWN
    assert (await _load(in_the_final.battle_id)).outcome is None


async def test_pending_battle_takes_no_results() -> None:
    """A battle that nobody has danced yet cannot end."""
    ruby, flow = await _save_battle(Phase.PRESELECTION, status=BattleStatus.PENDING)

    with pytest.raises(RuleBrokenError, match="only an active battle takes results"):
        await _encode(ruby.battle_id, {_score(ruby): "87", _score(flow): "79"})

    assert (await _load(ruby.battle_id)).status is BattleStatus.PENDING


async def _save_battle(
    phase: Phase, *, status: BattleStatus = BattleStatus.ACTIVE
) -> list[BattleEntry]:
    """Commit a battle of Ruby and Flow in a tournament of its own; give their parts in it."""
    category = a_category(blazes=["Ruby", "Flow"])
    tournament = a_tournament(category, phase=phase)
    battle = a_battle(category.performers, status=status)
    async with async_session_maker.begin() as session:
        session.add(tournament)
    return battle.entries


async def _encode(battle_id: int, form: dict[str, str]) -> None:
    async with async_session_maker() as session:
        await BattleService(session).encode(battle_id, form)


async def _load(battle_id: int) -> Battle:
    async with async_session_maker() as session:
        return await BattleService(session).load(battle_id)


def _score(entry: BattleEntry) -> str:
    """Name the field of the form in which the score of this performer stands."""
    return f"score_{entry.performer_id}"
