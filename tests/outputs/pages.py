"""A specification in three files, as a page shows it: every status, and whatever breaks pages."""

from __future__ import annotations

import re
from dataclasses import replace

from pytest_arena.scenarios.evidence._document import (
    Asserted,
    Document,
    Facts,
    JudgedScenario,
    JudgedStep,
    JudgedTest,
    Requested,
    Sabotage,
    Status,
    StepFacts,
)
from pytest_arena.scenarios.specs._reader import parse
from pytest_arena.scenarios.specs._specification import Problem, ScenarioSpec

__all__ = ["FEATURE", "MARKDOWN", "SOURCES", "document", "large", "place", "scenarios", "unread"]

FEATURE = r"""# language: en
@events
Feature: Judging a battle
  As a judge
  I want to score rounds.

  Background:
    Given a tournament "Winter Cup" exists
    And it has 3 judges

  @BTL-9
  Scenario: A round with a "tie" <b>is</b> decided & closed
    Given a battle with these rounds
      | round | note                      |
      | 1     | a \| b                    |
      | 2     | <script>alert(1)</script> |
    # the head judge decides
    When the head judge sends
      '''json
      Feature: Judging a battle
      {"winner": "red", "why": "a word that is far too long for a telephone, and goes on and on"}
      '''
    Then the battle status is CLOSED

  Rule: Scores stay within their range

    Scenario Outline: A score of <points> is <answer>
      Given an open round
      When a judge sends <points> points
      Then the answer is <answer>

      Examples: within
        | points | answer   |
        | 10     | accepted |
        | 11     | refused  |

    @manual
    Scenario: The jury is asked by telephone
      Given the server is down
      When nobody answers
      Then they are called
""".replace("'''", '"""')

_SCENARIO = """
Scenario: {name}
  Given a dancer is entered
  When she POSTs to /entries/{{entry_id}}/withdraw
  Then the answer is 409
"""

_NAMES = (
    "Late by a day",
    "Withdrawn in time",
    "Withdrawn too late",
    "Paid twice",
    "Paid by another",
    "Never paid",
    "No list yet",
    "A list of one",
    "Two lists",
    "Two dancers",
    "No dancer",
)

MARKDOWN = f"""---
title: front matter
---
# Registration, and what follows

See [the judging](judging.feature), [the rules](#business-rules),
[elsewhere](https://example.org/?a=1&b=2), [nowhere](gone.md) and [this](javascript:alert(1)).
Raw <b onclick="alert(1)">html</b><br>breaks.
![a picture](https://example.org/x.png) <script>alert(1)</script>

<div onmouseover="alert(1)">a block</div>

<!-- hidden
```gherkin
Scenario: no
```
-->

## Business rules

| Rule | Meaning | A long heading that makes this wide on a telephone | more | and more | still |
|:-----|:-------:|---|---|---|--:|
| BR-REG-001 | No `double` entries | a | b | c | d |

### BR-REG-001 No double entries

> Nobody stands twice in one list.
>
> #### A heading in a quote

- as a list item:

  ```gherkin
  Feature: Entries
  Scenario: One entry only
    Given a dancer "Zoë" is entered
    When she enters again
    Then the answer is 409
  ```

##### BR-REG-002 Late entries

```gherkin
Feature: Late entries
{"".join(_SCENARIO.format(name=name) for name in _NAMES)}```

## Business rules

```python
def code(): return "a very long line of code, wider than a telephone" + "and on and on and on"
```
"""

SOURCES = {
    "docs/judging.feature": FEATURE,
    "docs/registration.md": MARKDOWN,
    "docs/plain.md": "No heading, no Gherkin.\n",
}

_FACTS = Facts(
    seeded=(("battles", 1), ("users", 3)),
    requests=(
        Requested(
            method="POST",
            path="/battles/7/close",
            route="/battles/{battle_id}/close",
            status=303,
            role="mc",
            changed=(("battles", 1),),
            read=("battles",),
            observed=True,
        ),
        Requested(method="GET", path="/<b>", route="", status=None, changed=None, observed=False),
    ),
    first=1,
    asserted=(
        Asserted(place="tests/test_judging.py:31", text="response.status_code == 303", after=1),
        Asserted(place="tests/test_judging.py:40", text="1 < 2 & True", after=2, times=12),
        Asserted(place="tests/test_judging.py:41", text="True", after=2, is_constant=True),
    ),
    seen=("CLOSED",),
)

_SABOTAGES = (
    Sabotage(kind="seed", result="noticed", why="assert 404 == 303"),
    Sabotage(kind="commit", result="survived"),
    Sabotage(kind="empty", result="not applicable", why="a redirect has no body"),
    Sabotage(kind="500", result="unknown", why="it did not end"),
)

# The scenarios as they stand; those without a place here are of no further interest.
_STATUSES = (
    Status.PROVEN,
    Status.PARTIAL,
    Status.SKIPPED,
    Status.HOLLOW,
    Status.UNMAPPED,
    Status.FAILED,
    Status.DRIFTED,
    Status.STUB,
    Status.XFAIL,
    Status.XPASS,
    Status.SKIPPED,
    Status.NOT_RUN,
    Status.FLAKY,
    Status.UNKNOWN,
    Status.MALFORMED,
)


def scenarios() -> list[ScenarioSpec]:
    """All scenarios of the three files."""
    read = [parse(text, path) for path, text in SOURCES.items()]
    return [scenario for one in read for scenario in one.scenarios]


def place(name: str) -> tuple[str, str]:
    """Where a scenario stands, in the files and on the page."""
    (found,) = [one.place for one in scenarios() if one.name == name]
    return found, re.sub(r"[/.]", "-", found).replace(":", "-L")


def document() -> Document:
    """A run with a scenario of every status."""
    judged = tuple(map(_judged, scenarios(), _STATUSES))
    return Document(
        scenarios=judged,
        problems=(
            Problem(spec="docs/judging.feature", line=12, what="an odd <tag>", is_error=False),
            Problem(spec="docs/registration.md", line=8, what="raw HTML", hint="write Markdown"),
            Problem(spec="tests/test_x.py", line=3, what='no scenario is called "Lat"'),
        ),
        gaps=tuple(
            f"{one.scenario.place}: {one.status.value}: {one.reason}"
            for one in judged
            if one.status is not Status.PROVEN
        ),
        partial="-k start",
        is_sabotaged=True,
    )


def _judged(scenario: ScenarioSpec, status: Status) -> JudgedScenario:
    is_proven = status is Status.PROVEN
    has_test = status not in {Status.UNMAPPED, Status.MALFORMED}
    reason = "" if is_proven else f"it is {status.value} <because> of tests/test_judging.py:9"
    steps = [JudgedStep(status=Status.PROVEN if is_proven else None) for _ in scenario.steps]
    if status is Status.HOLLOW:
        steps[-1] = JudgedStep(status=Status.HOLLOW, reason="no assertion in this block")
    return JudgedScenario(
        scenario=scenario,
        status=status,
        reason=reason,
        place="" if is_proven else "tests/test_judging.py:9",
        also=(Status.FLAKY,) if status is Status.FAILED else (),
        warnings=("POST /battles/7/close changed no rows",) if is_proven else (),
        is_excused=status is Status.UNMAPPED,
        tests=(_test(scenario, status),) if has_test else (),
        steps=tuple(steps),
    )


def _test(scenario: ScenarioSpec, status: Status) -> JudgedTest:
    step = StepFacts(scenario=scenario.key, step=1, wrote=2, requests=(0,), assertions=3)
    off = Facts(seeded=None, off=(("asserted", "python -O"), ("seeded", "no journal")))
    return JudgedTest(
        test=f"tests/test_judging.py::test_{scenario.line}[<a>]",
        place="tests/test_judging.py:9",
        status=Status.PROVEN if status is Status.PARTIAL else status,
        row=scenario.rows[0].values if scenario.rows else (),
        also=(Status.FLAKY,) if status is Status.FAILED else (),
        facts=off if status is Status.UNKNOWN else replace(_FACTS, steps=(step,)),
        sabotages=_SABOTAGES if status is Status.PROVEN else (),
    )


def unread() -> Document:
    """The same, with scenarios that were read in another text than that of today."""
    found = document()
    moved = [replace(one.scenario, line=one.scenario.line + 900) for one in found.scenarios]
    return replace(
        found,
        scenarios=tuple(map(_moved, found.scenarios, moved)),
    )


def _moved(judged: JudgedScenario, scenario: ScenarioSpec) -> JudgedScenario:
    return replace(judged, scenario=scenario)


def large(count: int) -> tuple[Document, dict[str, str]]:
    """A run of ``count`` scenarios in files of 20, each with a test and its evidence."""
    sources = {
        f"specs/{file:04}.md": f"# File {file}\n\nProse, *such as it is*.\n\n```gherkin\n"
        f"Feature: F {file}\n"
        + "".join(_SCENARIO.format(name=f"Scenario {file} {one}") for one in range(20))
        + "```\n"
        for file in range(count // 20)
    }
    read = [scenario for path, text in sources.items() for scenario in parse(text, path).scenarios]
    judged = [
        _judged(scenario, _STATUSES[place % len(_STATUSES)]) for place, scenario in enumerate(read)
    ]
    return Document(scenarios=tuple(judged)), sources
