"""The evidence that a scenario requires, and what is missing."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from pytest_arena.scenarios.evidence._document import (
    NO_ROUTE,
    Facts,
    JudgedStep,
    Mapping,
    Requested,
    Sabotage,
    SabotageKind,
    Status,
    StepFacts,
)
from pytest_arena.scenarios.specs._specification import (
    Kind,
    Row,
    ScenarioSpec,
    Step,
    grouped_by,
    literals,
    paths,
    row_text,
)

NO_SEED = "@no-seed"  # each test finds the data of the Given without seeding
NO_REQUEST = "@no-request"  # the scenario is about a command, a batch, a file
BROKEN: dict[SabotageKind, str] = {
    "seed": "its seed removed",
    "commit": "the app's commit rolled back",
    "policy": "the policies of its tables disabled",
    "empty": "the answer emptied",
    "500": "the answer turned into a 500",
}
EXCUSES = (NO_SEED, NO_REQUEST, *(f"@survives-{kind}" for kind in BROKEN))
"""The tags that excuse a scenario from a piece of evidence."""

_SHOWS = {
    "seeded": "seeded rows",
    "requested": "made a request",
    "asserted": "asserted anything",
}
# The evidence that each kind of step needs in its block.
_NEEDED: dict[Kind, tuple[str, str]] = {
    "given": ("seeded", "nothing was written"),
    "when": ("requested", "no request"),
    "then": ("asserted", "no assertion"),
}
_WRITING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_NOTHING = re.compile(r"(?i)(?:there (?:is|are) )?(?:no|nobody|nothing|zero|0)(?!\S)")
_NOT_FOUND = 404
_PLACEHOLDER = re.compile(r"\{[^{}/]*\}|<[^<>/]*>")


@dataclass(frozen=True, slots=True)
class StatusReason:
    """A status that applies, the reason, and the line of a test that the reason is about."""

    status: Status
    reason: str = ""
    place: str = ""


def worst(flags: Iterable[StatusReason]) -> StatusReason:
    """Return the worst status with the reasons of all its flags, or PROVEN without flags."""
    ordered = sorted(flags, key=lambda flag: flag.status.rank)
    if not ordered:
        return StatusReason(Status.PROVEN)
    first = ordered[0]
    reasons: dict[str, None] = {
        flag.reason: None
        for flag in ordered
        if flag.reason and flag.status is first.status
    }
    return StatusReason(
        first.status,
        "; ".join(reasons),
        first.place,
    )


def other_statuses(
    statuses: Iterable[Status],
    excluded: Status,
) -> tuple[Status, ...]:
    """Return the distinct statuses, the worst first, without PROVEN and the excluded status."""
    others = set(statuses) - {excluded, Status.PROVEN}
    return tuple(sorted(others, key=lambda status: status.rank))


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim of one test to prove one scenario, or one row of it."""

    scenario: ScenarioSpec
    mapping: Mapping
    is_sabotaged: bool
    """Whether passed tests were run again under sabotage."""

    @property
    def proven(self) -> ScenarioSpec | Row:
        """The row that the test proves, or the scenario."""
        for row in self.scenario.rows:
            if row.values == self.mapping.row:
                return row
        return self.scenario

    @property
    def tags(self) -> frozenset[str]:
        """The tags of the scenario, and of the row that the test proves."""
        return frozenset(self.scenario.tags + self.proven.tags)

    @property
    def paths(self) -> tuple[tuple[str, str], ...]:
        """The paths of the steps with their verbs, and the values of the proven row."""
        return paths(self.scenario, self.mapping.row)

    def needs_seed(self, facts: Facts) -> bool:
        """Return whether a Given needs rows that the test writes."""
        if NO_SEED in self.tags:
            return False
        for step in self.proven.steps:
            if step.kind != "given" or _NOTHING.match(step.text):
                continue
            has_empty_table = len(step.table) == 1
            is_seeded_by_base = step.is_background and facts.has_base
            if not has_empty_table and not is_seeded_by_base:
                return True
        return False

    def flag(self, status: Status, reason: str) -> StatusReason:
        """Return a status of the test as a whole."""
        return StatusReason(status, reason, self.mapping.place)

    def missing(self, facts: Facts | None) -> list[StatusReason]:
        """Return a flag for each piece of evidence that is missing.

        The status is HOLLOW, or UNKNOWN if pytest-arena could not record that kind of evidence.
        """
        if facts is None:
            unknown = "pytest-arena did not record what it did"
            return [self.flag(Status.UNKNOWN, unknown)]
        find_missing = {
            "seeded": self._missing_seed,
            "requested": self._missing_request,
            "asserted": self._missing_assertion,
        }
        flags = []
        for kind, find in find_missing.items():
            missing = find(facts)
            why = _why_unknown(facts, kind)
            if missing and why:
                reason = f"it may not have {_SHOWS[kind]}: {why}"
                flags.append(self.flag(Status.UNKNOWN, reason))
            elif missing:
                flags.append(self.flag(Status.HOLLOW, missing))
        return flags + [
            self.flag(step.status, step.reason)
            for step in self.judged_steps(facts)
            if step.status and step.reason
        ]

    def _missing_seed(self, facts: Facts) -> str:
        if facts.seeded or not self.needs_seed(facts):
            return ""
        if not facts.requests:
            return "no row was seeded"
        text = "no row was seeded before its first request"
        own = facts.requests[facts.first :]
        if len(own) > 1 and own[0].changed:  # the test may seed by a request to the app
            request = f"{own[0].method} {own[0].path}"
            text += f" (if {request} is preparation, send it in scenario.given(…) or in a fixture)"
        return text

    def _missing_request(self, facts: Facts) -> str:
        if NO_REQUEST in self.tags:
            return ""
        if facts.requests:
            return self._missed_routes(facts.requests[facts.first :])
        if facts.late:
            return (
                f"no request reached the app before the tear-down, which sent {facts.late[0]}"
                " (send it in the test, because a tear-down proves nothing)"
            )
        return "no request reached the app"

    def _missed_routes(self, requests: Sequence[Requested]) -> str:
        """Return a sentence if the app has no route for any request and no step names a path."""
        for request in requests:
            is_named = any(_is_hit(verb, path, request) for verb, path in self.paths)
            if request.route != NO_ROUTE or request.status != _NOT_FOUND or is_named:
                return ""
        if not requests:
            return ""
        request = requests[0]
        return (
            f"the app has no route for {request.method} {request.path}, so it answered 404 (if "
            "the scenario is about this path, name it in a step)"
        )

    def _missing_assertion(self, facts: Facts) -> str:
        checks = facts.checks
        if facts.checks_at_the_end or (checks and NO_REQUEST in self.tags):
            return ""
        hint = ""
        if facts.asserted:
            first = min(facts.asserted, key=lambda check: check.place)
            hint = f" that could fail ({first.place} cannot: {_advice(first.text)})"
        if not facts.requests:
            return f"no assertion{hint}"
        if checks:
            early = max(checks, key=lambda check: (check.after, check.place))
            hint = f" (the last assertion, {early.place}, is before it)"
        last = facts.requests[-1]
        return f"no assertion after {last.method} {last.path}{hint}"

    def unnoticed(self, sabotages: Iterable[Sabotage]) -> Iterator[StatusReason]:
        """Yield HOLLOW for each survived sabotage, and UNKNOWN for each without result.

        A tag on the scenario excuses one kind: ``@survives-seed`` (and ``@no-seed``),
        ``@survives-commit``, ``@survives-policy``, ``@survives-empty``, ``@survives-500``.
        """
        tags = self.tags
        for sabotage in sabotages:
            kind = sabotage.kind
            if f"@survives-{kind}" in tags or (kind == "seed" and NO_SEED in tags):
                continue
            why = ""
            if sabotage.why:
                why = f": {sabotage.why}"
            if sabotage.result == "survived":
                yield self.flag(Status.HOLLOW, f"still passes with {BROKEN[kind]}{why}")
            elif sabotage.result == "unknown":
                unknown = f"it may not notice {BROKEN[kind]}{why}"
                yield self.flag(Status.UNKNOWN, unknown)

    def judged_steps(self, facts: Facts) -> tuple[JudgedStep, ...]:
        """Return a verdict on each step by the blocks of the test.

        If the test has a block, each When and each Then needs a block. A Given needs none, because
        a fixture may prepare it. A Then needs an assertion in its block. The Whens together need
        one request. The Givens together need an effect, or rows that fixtures seeded.
        """
        own = [block for block in facts.steps if block.scenario == self.scenario.key]
        blocks = grouped_by(own, lambda block: block.step)
        steps = []
        for number, step in enumerate(self.scenario.steps):
            judged = JudgedStep()
            if number in blocks:
                is_idle = self._is_idle(
                    step.kind,
                    blocks[number],
                    own,
                    facts,
                )
                judged = self._judged_step(step, facts, is_idle=is_idle)
            elif blocks and step.kind != "given" and not step.is_background:
                missing = f'no block for "{step}"'
                judged = JudgedStep(status=Status.HOLLOW, reason=missing)
            steps.append(judged)
        return tuple(steps)

    def _is_idle(
        self,
        kind: Kind,
        blocks: list[StepFacts],
        all_blocks: list[StepFacts],
        facts: Facts,
    ) -> bool:
        """Return whether the test lacks the effect that a step needs.

        Args:
            kind: the kind of the step.
            blocks: the blocks of the step.
            all_blocks: the blocks of all steps.
            facts: the facts of the test.
        """
        if kind == "then":
            return not any(block.assertions for block in blocks)
        has_request = False
        has_effect = bool(facts.seeded)
        for block in all_blocks:
            if self.scenario.steps[block.step].kind == kind:
                has_request = has_request or bool(block.requests)
                has_effect = has_effect or bool(block.wrote)
        if kind == "when":
            return NO_REQUEST not in self.tags and not has_request
        return self.needs_seed(facts) and not has_request and not has_effect

    def _judged_step(
        self,
        step: Step,
        facts: Facts,
        *,
        is_idle: bool,
    ) -> JudgedStep:
        kind, missing = _NEEDED[step.kind]
        if not is_idle:
            return JudgedStep(status=Status.PROVEN)
        why = _why_unknown(facts, kind)
        if why:
            unknown = f'pytest-arena could not judge "{step}": {why}'
            return JudgedStep(status=Status.UNKNOWN, reason=unknown)
        return JudgedStep(
            status=Status.HOLLOW,
            reason=f'{missing} in "{step}"',
        )

    def warnings(self, facts: Facts) -> tuple[str, ...]:
        """Return the warnings about a test. They do not fail a run.

        Kinds of evidence that pytest-arena could not record cause no warning.
        """
        unrecorded = dict(facts.off)
        own = facts.requests[facts.first :]
        warnings = [
            f"{place}: the test swallows that this assertion failed: {text}"
            for place, text in facts.swallowed
        ]
        warnings += [f"{lost} (A603)" for lost in facts.lost]
        if "requested" not in unrecorded:
            for verb, path in self.paths:
                is_hit = any(_is_hit(verb, path, request) for request in facts.requests)
                if facts.requests and not is_hit:
                    warnings.append(
                        f"never requested: {verb} {path}".replace("  ", " ")
                    )
        is_unread = bool(own) and all(request.read == () for request in own)
        if "read" not in unrecorded and facts.seeded and is_unread:
            tables = ", ".join(table for table, _ in facts.seeded)
            warnings.append(f"no request read the seeded rows of {tables}")
        is_unobserved = bool(own) and all(request.observed is False for request in own)
        if "observed" not in unrecorded and is_unobserved:
            warnings.append("the test looked at no answer")
        if "changed" not in unrecorded:
            warnings += _without_effect(own)
        for column in self.mapping.unused:
            warnings.append(
                f"the test never uses <{column}> of the row {row_text(self.mapping.row)}"
            )
        warnings += self._unseen_literals(facts)
        return tuple(dict.fromkeys(warnings))

    def _unseen_literals(self, facts: Facts) -> Iterator[str]:
        wanted = literals(self.scenario, (self.mapping.row,))
        unseen = [literal for literal in wanted if literal not in facts.seen]
        if unseen:
            seen = f"{len(wanted) - len(unseen)} of {len(wanted)}"
            yield f"the test used {seen} values of the steps, but not: {', '.join(unseen)}"


_UNCALLED = re.compile(r"(?:bool\()?(\w+\.(?!status_code)\w+)\)?")


def _advice(text: str) -> str:
    """Return advice for an assertion that cannot fail."""
    if text.startswith("all("):
        return "all(…) of an empty list is true, so assert its length too"
    uncalled = _UNCALLED.fullmatch(text)
    if uncalled:
        return f"{uncalled[1]} is always true, so compare its value, or call it if it is a method"
    return "compare the answer, or rows read after it, with the expected values"


def _why_unknown(facts: Facts, kind: str) -> str:
    """Return why a kind of evidence was not recorded, or "" if it was."""
    if kind == "seeded" and facts.seeded is None:
        return dict(facts.off).get(kind) or "the rows could not be read"
    return dict(facts.off).get(kind, "")


def _is_hit(
    verb: str,
    path: str,
    request: Requested,
) -> bool:
    """Return whether a request has the verb and the path that a step names.

    The step names a template or a real path. The path may lack prefixes of the app.
    """
    if verb and verb != request.method.upper():
        return False
    named = unquote(path).rstrip("/")
    sent = unquote(request.path.partition("?")[0]).rstrip("/")
    if not named:  # the step names "/", and each path ends with ""
        return not sent or request.route == "/"
    template = _PLACEHOLDER.sub("{}", named)
    for route in (request.route.rstrip("/"), sent):
        if _PLACEHOLDER.sub("{}", route).endswith(template):
            return True
    fixed_parts = map(re.escape, _PLACEHOLDER.split(named))
    return re.search(f"{'[^/]+'.join(fixed_parts)}$", sent) is not None


def _without_effect(requests: Iterable[Requested]) -> Iterator[str]:
    for request in requests:
        status = request.status
        if status is None or request.method not in _WRITING_METHODS:
            continue
        changed = request.changed
        has_changed = changed is None or any(count for _, count in changed)
        if 200 <= status < 400 and not has_changed:  # noqa: PLR2004 - 2xx and 3xx
            route = request.route or request.path
            yield f"{request.method} {route} changed no row, and answered {status}"
