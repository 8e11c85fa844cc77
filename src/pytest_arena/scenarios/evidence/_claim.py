"""What does a test have to show for its scenario, and what of it is missing?"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pytest_arena.scenarios.evidence._document import (
    Facts,
    JudgedStep,
    Mapping,
    Requested,
    Sabotage,
    Status,
    StepFacts,
)
from pytest_arena.scenarios.specs._specification import (
    Kind,
    Pairs,
    ScenarioSpec,
    Step,
    grouped_by,
    literals,
    paths,
)

NO_SEED = "@no-seed"  # what the database holds before any test satisfies its Given
NO_REQUEST = "@no-request"  # it is not about a request, but a command, a batch, a file
BROKEN = {
    "seed": "its seed removed",
    "commit": "the app's commit rolled back",
    "policy": "the policies of its tables off",
    "empty": "the answer emptied",
    "500": "the answer turned into a 500",
}
# The tags by which a scenario is not asked for something.
EXCUSES = (NO_SEED, NO_REQUEST, *(f"@survives-{kind}" for kind in BROKEN))
_SHOWS = {
    "seeded": "seeded rows",
    "requested": "made a request",
    "asserted": "asserted anything",
}
# Of each kind of step: the instrument that has to see something in its block.
_NEEDED: dict[Kind, tuple[str, str]] = {
    "given": ("seeded", "nothing was written"),
    "when": ("requested", "no request"),
    "then": ("asserted", "no assertion"),
}
_WRITES = {"POST", "PUT", "PATCH", "DELETE"}
_NOTHING = re.compile(r"(?i)(?:there (?:is|are) )?(?:no|nobody|nothing|zero|0)(?!\S)")
_PLACEHOLDER = re.compile(r"\{[^{}/]*\}|<[^<>/]*>")


@dataclass(frozen=True, slots=True)
class StatusReason:
    """A status that applies, why, and the line in the tests that this is about."""

    status: Status
    reason: str = ""
    place: str = ""


def worst(flags: Iterable[StatusReason]) -> StatusReason:
    """Return the worst: PROVEN of none, of several alike the first, with the reasons of all."""
    ordered = sorted(flags, key=lambda flag: flag.status.rank)
    if not ordered:
        return StatusReason(Status.PROVEN)
    alike = [flag for flag in ordered if flag.status is ordered[0].status]
    reasons = dict.fromkeys(flag.reason for flag in alike if flag.reason)
    return StatusReason(alike[0].status, "; ".join(reasons), alike[0].place)


def other_statuses(statuses: Iterable[Status], but: Status) -> tuple[Status, ...]:
    """Return each status but this one and PROVEN once, the worst first."""
    return tuple(
        sorted(set(statuses) - {but, Status.PROVEN}, key=lambda status: status.rank)
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """One test says that it proves one scenario, or a row of it."""

    scenario: ScenarioSpec
    mapping: Mapping
    evidence: Sequence[str]
    is_sabotaged: bool

    @property
    def tags(self) -> frozenset[str]:
        """Those of the scenario, and of the row that the test proves."""
        rows = [
            row.tags for row in self.scenario.rows if row.values == self.mapping.row
        ]
        return frozenset(self.scenario.tags).union(*rows)

    def asks_for_seed(self, facts: Facts) -> bool:
        """Whether a Given is there for which the test has to bring rows.

        None that says that nothing is there; nor a Background's, where ``arena_seed`` brings some.
        """
        rows = [
            row.steps for row in self.scenario.rows if row.values == self.mapping.row
        ]
        given = [it for it in (*rows, self.scenario.steps)[0] if it.kind == "given"]
        own = [it for it in given if not (it.is_background and facts.has_base)]
        is_asked = any(not _NOTHING.match(it.text) and len(it.table) != 1 for it in own)
        return is_asked and NO_SEED not in self.tags

    def flag(self, status: Status, reason: str) -> StatusReason:
        """Return a flag of the test as a whole."""
        return StatusReason(status, reason, self.mapping.place)

    def missing(self, facts: Facts | None) -> list[StatusReason]:
        """Return a flag for each piece of required evidence that is not there.

        HOLLOW where it was looked for; UNKNOWN where the instrument was off: then it may have been.
        """
        if facts is None:
            unknown = self.flag(Status.UNKNOWN, "nothing is known of what it did")
            return [unknown] if self.evidence else []
        has_request = bool(facts.requests) or NO_REQUEST in self.tags
        missing = {
            "seeded": ""
            if facts.seeded or not self.asks_for_seed(facts)
            else _no_seed(facts),
            "requested": "" if has_request else "no request reached the app",
            "asserted": self._no_assertion(facts),
        }
        flags = []
        for instrument in self.evidence:
            if missing[instrument] and (why := _why_unknown(facts, instrument)):
                what = f"whether it {_SHOWS[instrument]} is not known: {why}"
                flags.append(self.flag(Status.UNKNOWN, what))
            elif missing[instrument]:
                flags.append(self.flag(Status.HOLLOW, missing[instrument]))
        steps = self.judged_steps(facts)
        return flags + [
            self.flag(it.status, it.reason) for it in steps if it.status and it.reason
        ]

    def _no_assertion(self, facts: Facts) -> str:
        checks = facts.checks
        if checks if NO_REQUEST in self.tags else facts.checks_at_the_end:
            return ""
        constant = min((check.place for check in facts.asserted), default="")
        cannot = f"{constant} cannot: assert on the answer, or on rows read since"
        more = f" that could fail ({cannot})" if constant else ""
        if not facts.requests:
            return f"no assertion{more}"
        if early := max(
            checks, key=lambda check: (check.after, check.place), default=None
        ):
            more = f" (the last one, {early.place}, is before it)"
        last = facts.requests[-1]
        return f"no assertion after {last.method} {last.path}{more}"

    def unnoticed(self, sabotages: Iterable[Sabotage]) -> Iterator[StatusReason]:
        """Yield HOLLOW for each kind that the test survived, UNKNOWN for each that says nothing.

        A tag on the scenario excuses one kind: ``@survives-seed`` (and ``@no-seed``),
        ``@survives-commit``, ``@survives-policy``, ``@survives-empty``, ``@survives-500``.
        """
        for sabotage in sabotages:
            kind, excuses = sabotage.kind, {f"@survives-{sabotage.kind}"}
            if self.tags & (excuses | {NO_SEED} if kind == "seed" else excuses):
                continue
            if sabotage.result == "survived":
                what = f"stays green with {BROKEN[kind]}"
                yield self.flag(
                    Status.HOLLOW, ": ".join(filter(None, [what, sabotage.why]))
                )
            if sabotage.result == "unknown":
                what = f"whether it notices {BROKEN[kind]} is not known"
                yield self.flag(
                    Status.UNKNOWN, ": ".join(filter(None, [what, sabotage.why]))
                )

    def judged_steps(self, facts: Facts) -> tuple[JudgedStep, ...]:
        """Return what the blocks of the test show of each step; of a test without blocks nothing.

        A Then needs an assertion of its own. The Whens together need one request, the Givens
        together an effect, or rows that fixtures seeded. Once there is one block, each When and
        Then needs one; a Given needs none, for a fixture may stand for it: whether rows were seeded
        is asked of the test as a whole.
        """
        own = (block for block in facts.steps if block.scenario == self.scenario.key)
        blocks = grouped_by(own, lambda block: block.step)
        steps = []
        for number, step in enumerate(self.scenario.steps):
            if number in blocks:
                is_idle = self._is_idle(step.kind, blocks[number], facts, blocks)
                steps.append(self._judged_step(step, facts, is_idle=is_idle))
            elif not blocks or step.kind == "given" or step.is_background:
                steps.append(JudgedStep())
            else:
                steps.append(
                    JudgedStep(status=Status.HOLLOW, reason=f'no block for "{step}"')
                )
        return tuple(steps)

    def _is_idle(
        self,
        kind: Kind,
        own: list[StepFacts],
        facts: Facts,
        blocks: dict[int, list[StepFacts]],
    ) -> bool:
        """Whether nothing happened of what a step is there for: in its own blocks, or in all."""
        if kind == "then":
            return not any(block.assertions for block in own)
        alike = [
            block
            for number, several in blocks.items()
            for block in several
            if self.scenario.steps[number].kind == kind
        ]
        if kind == "when":
            return NO_REQUEST not in self.tags and not any(it.requests for it in alike)
        has_effect = any(block.wrote or block.requests for block in alike)
        return self.asks_for_seed(facts) and not (has_effect or facts.seeded)

    def _judged_step(self, step: Step, facts: Facts, *, is_idle: bool) -> JudgedStep:
        instrument, what = _NEEDED[step.kind]
        if not is_idle or instrument not in self.evidence:
            return JudgedStep(status=Status.PROVEN)
        if why := _why_unknown(facts, instrument):
            return JudgedStep(
                status=Status.UNKNOWN, reason=f'"{step}" is not known: {why}'
            )
        return JudgedStep(status=Status.HOLLOW, reason=f'{what} in "{step}"')

    def warnings(self, facts: Facts) -> tuple[str, ...]:
        """Return what is odd about what the test did, a sentence for each: the gate asks for none.

        What could not be seen, since an instrument was off, is not remarked on.
        """
        scenario, off = self.scenario, dict(facts.off)
        looks = (
            ("requested", _other_routes(scenario, facts)),
            ("read", _unread_seed(facts)),
            ("observed", _unobserved(facts)),
            ("changed", _without_effect(facts)),
            ("", _unseen_literals(scenario, self.mapping.row, facts)),
        )
        return tuple(
            dict.fromkeys(
                text for name, look in looks if name not in off for text in look
            )
        )


def _why_unknown(facts: Facts, instrument: str) -> str:
    """Return why an instrument saw nothing, empty if it worked."""
    unread = instrument == "seeded" and facts.seeded is None
    return dict(facts.off).get(
        instrument, "the rows could not be read" if unread else ""
    )


def _no_seed(facts: Facts) -> str:
    text = "no row was seeded" + " before its first request" * bool(facts.requests)
    first, later = (
        facts.requests[facts.first : facts.first + 1],
        facts.requests[facts.first + 1 :],
    )
    if later and first[0].changed:  # a test that seeds by the app's own requests
        request = f"{first[0].method} {first[0].path}"
        text += f" (if {request} prepares: scenario.given(…), or a fixture)"
    return text


def _other_routes(scenario: ScenarioSpec, facts: Facts) -> Iterator[str]:
    for verb, path in paths(scenario):
        if facts.requests and not any(
            _is_hit(verb, path, request) for request in facts.requests
        ):
            yield f"never requested: {verb} {path}".replace("  ", " ")


def _is_hit(verb: str, path: str, request: Requested) -> bool:
    """A step names a route's template or a real path, with or without what comes before both."""
    if verb and verb.upper() != request.method.upper():
        return False
    named = path.split("?", maxsplit=1)[0].rstrip("/")
    hit = (request.route.rstrip("/"), request.path.split("?")[0].rstrip("/"))
    blank = _PLACEHOLDER.sub("{}", named)
    is_route = any(_PLACEHOLDER.sub("{}", path).endswith(blank) for path in hit)
    pattern = "[^/]+".join(map(re.escape, _PLACEHOLDER.split(named)))
    return is_route or re.search(f"{pattern}$", hit[1]) is not None


def _unread_seed(facts: Facts) -> Iterator[str]:
    reads = [request.read for request in facts.requests[facts.first :]]
    if facts.seeded and reads and not any(read is None or read for read in reads):
        yield f"no request read what was seeded: {', '.join(table for table, _ in facts.seeded)}"


def _unobserved(facts: Facts) -> Iterator[str]:
    asked = facts.requests[facts.first :]
    if facts.requests and all(request.observed is False for request in asked):
        yield "no answer was looked at"


def _without_effect(facts: Facts) -> Iterator[str]:
    for request in facts.requests[facts.first :]:
        is_done = request.status is not None and 200 <= request.status < 400  # noqa: PLR2004 - 2xx and 3xx
        is_idle = request.changed is not None and not sum(
            count for _, count in request.changed
        )
        if request.method in _WRITES and is_done and is_idle:
            route = request.route or request.path
            yield f"{request.method} {route} changed no row, and answered {request.status}"


def _unseen_literals(scenario: ScenarioSpec, row: Pairs, facts: Facts) -> Iterator[str]:
    wanted = literals(scenario, (row,))
    unseen = [literal for literal in wanted if literal not in facts.seen]
    if unseen:
        seen = f"{len(wanted) - len(unseen)} of {len(wanted)} values of the steps were seen"
        yield f"{seen}, never: {', '.join(unseen)}"
