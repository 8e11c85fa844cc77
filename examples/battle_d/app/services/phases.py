"""May a tournament go on to its next phase, and what stands in the way?"""

from collections.abc import Iterator

from app.models import BattleStatus, Phase, Tournament


def find_obstacles(tournament: Tournament) -> list[str]:
    """Say, in a sentence each, what keeps the tournament in its phase."""
    if tournament.phase is Phase.COMPLETED:
        return ["The tournament is over."]
    if tournament.phase is Phase.REGISTRATION:
        return list(_find_gaps(tournament))
    return list(_find_open_battles(tournament))


def _find_gaps(tournament: Tournament) -> Iterator[str]:
    """A preselection needs somebody to choose from, in every category."""
    if not tournament.categories:
        yield "The tournament has no category."
    for category in tournament.categories:
        needed, present = category.places + 1, len(category.performers)
        if present < needed:
            yield f"{category.name} has {present} performers and needs at least {needed}."


def _find_open_battles(tournament: Tournament) -> Iterator[str]:
    """A phase is over when all its battles are, and not before there were any."""
    battles = [battle for battle in tournament.battles if battle.phase is tournament.phase]
    if not battles:
        yield f"No battle was danced in the phase {tournament.phase}."
    for battle in battles:
        if battle.status is not BattleStatus.COMPLETED:
            yield f"The battle {battle.title} is still {battle.status}."
