"""What a judge may write down after a battle, and what it means for the battle.

A preselection gives every performer a score; a pool battle has a winner or is a draw;
a final has a winner.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from app.errors import InvalidInputError
from app.models import Battle, BattleStatus, Outcome, Phase
from app.models.battle import BEST_SCORE

DRAW = "draw"
"""The word that stands in the form in place of a winner."""


@dataclass(frozen=True, slots=True)
class Scores:
    """A score for each performer, by the performer's id."""

    by_performer: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Win:
    """One performer won."""

    performer_id: int


@dataclass(frozen=True, slots=True)
class Draw:
    """Nobody won."""


Result = Scores | Win | Draw


def read_result(battle: Battle, form: Mapping[str, str]) -> Result:
    """Understand a filled-in form as a result of this battle."""
    if battle.phase is Phase.PRESELECTION:
        return Scores(_read_scores(battle, form))
    return _read_winner(battle, form)


def write_result(battle: Battle, result: Result) -> None:
    """Complete the battle with the result."""
    match result:
        case Scores(by_performer):
            battle.outcome = Outcome.SCORED
            for entry in battle.entries:
                entry.score = by_performer[entry.performer_id]
        case Win(performer_id):
            battle.outcome = Outcome.WON
            battle.winner_id = performer_id
        case Draw():
            battle.outcome = Outcome.DRAWN
    battle.status = BattleStatus.COMPLETED


def _read_scores(battle: Battle, form: Mapping[str, str]) -> dict[int, int]:
    wrong = [
        f"{entry.blaze} needs a score from 0 to {BEST_SCORE}."
        for entry in battle.entries
        if not _is_score(form.get(f"score_{entry.performer_id}", ""))
    ]
    if wrong:
        raise InvalidInputError(*wrong)
    ids = [entry.performer_id for entry in battle.entries]
    return {performer_id: int(form[f"score_{performer_id}"]) for performer_id in ids}


def _is_score(written: str) -> bool:
    return written.isascii() and written.isdigit() and int(written) <= BEST_SCORE


def _read_winner(battle: Battle, form: Mapping[str, str]) -> Win | Draw:
    winner = form.get("winner", "")
    if winner == DRAW and battle.phase is Phase.POOLS:
        return Draw()
    if winner in {str(entry.performer_id) for entry in battle.entries}:
        return Win(int(winner))
    reason = f"Choose who won the battle {battle.title}."
    raise InvalidInputError(reason)
