"""What does a step suggest: who is logged in, which fixture, which lines of code?

Suggestions are comments and fixtures, nothing is decided by them: English words are enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_arena.scenarios.specs import literals, paths
from pytest_arena.scenarios.stubs._columns import filled_in
from pytest_arena.scenarios.stubs._found_routes import find_route, nearest_route
from pytest_arena.scenarios.stubs._layout import quoted
from pytest_arena.scenarios.stubs._names import identifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_arena._values import Route
    from pytest_arena.scenarios.specs import Scenario, Step

__all__ = ["Suggestions", "suggest"]

_LOGIN = r"(?:authenticat\w*|(?:log|sign)(?:ged|ned|s|ging|ning)?[ -]?in|act(?:s|ing)?)"
_WHO = r"""(?:"(?P<quoted>[^"]+)"|(?P<word>[\w-]+))"""
# "I am authenticated as MC", "Kim logs in as the judge"; "as an admin", at the end or set apart.
_ROLE = re.compile(rf"\b{_LOGIN} as (?:an? |the )?{_WHO}", re.IGNORECASE)
_AS_ROLE = re.compile(r"(?:^|\bI\b.* )as an? (?P<word>[\w-]+)(?=$|,| I\b)", re.IGNORECASE)
_NOT = re.compile(r"\b(?:not|never|no longer|without|cannot)\b|n't\b", re.IGNORECASE)
_STATUS = re.compile(r"[1-5]\d\d")


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What the steps of one scenario suggest: fixtures, and lines of comment for each step."""

    fixtures: tuple[str, ...]
    comments: tuple[tuple[str, ...], ...]


def suggest(
    scenario: Scenario, *, columns: Mapping[str, str], routes: Sequence[Route] | None
) -> Suggestions:
    """Look at all steps; ``columns`` has the code for each column of an Outline.

    ``routes`` are those of the app, None where it is not known.
    """
    reader = _Reader(scenario, columns, routes)
    comments = tuple(tuple(reader.read(step)) for step in scenario.steps)
    return Suggestions(tuple(sorted(reader.fixtures)), comments)


class _Reader:
    """Reads the steps in their order: who has logged in talks from there on."""

    def __init__(
        self, scenario: Scenario, columns: Mapping[str, str], routes: Sequence[Route] | None
    ) -> None:
        self._scenario, self._columns, self._routes = scenario, columns, routes
        roles = [role for step in scenario.steps if (role := _role(step))]
        self._client = identifier(roles[0]) if roles else "client"
        self._is_seeded = "@no-seed" not in scenario.tags
        self._is_requested = "@no-request" not in scenario.tags
        self.fixtures = {"scenario"} | ({"client_as"} if roles else self._plain_client())

    def _plain_client(self) -> set[str]:
        return {"client"} if self._is_requested else set()

    def read(self, step: Step) -> Iterator[str]:
        if role := _role(step):
            self._client = identifier(role)
            yield f"{self._client} = client_as({quoted(role.lower())})"
        requests = paths(self._only(step))
        for verb, path in requests:
            yield from self._request(verb, path, is_made=step.kind != "then")
        if not requests and not role:
            yield from self._without_path(step)

    def _only(self, step: Step) -> Scenario:
        return replace(self._scenario, steps=(step,), rows=())

    def _request(self, verb: str, path: str, *, is_made: bool) -> Iterator[str]:
        route = find_route(verb, path, self._routes or ())
        verb = verb or (route.method if route else "GET")
        if route:
            yield f"{route.method} {route.path} -> {route.name}"
        elif self._routes is not None:
            yield from self._no_route(verb, path)
        if is_made and verb != "WEBSOCKET":
            yield f"response = await {self._client}.{verb.lower()}({self._address(path)})"

    def _no_route(self, verb: str, path: str) -> Iterator[str]:
        yield f"{verb} {path}: the app has no such route"
        if near := nearest_route(verb, path, self._routes or ()):
            yield f"the nearest: {near.method} {near.path} -> {near.name}"

    def _address(self, path: str) -> str:
        """The path as code: what is in braces, as an Outline's columns are, becomes a variable."""
        names = re.findall(r"\{(.*?)\}", path)
        known = {name: self._columns.get(name, name).replace('"', "'") for name in names}
        if not names or not all(name in self._columns or name.isidentifier() for name in names):
            return quoted(path)
        return "f" + quoted(re.sub(r"\{(.*?)\}", lambda one: f"{{{known[one[1]]}}}", path))

    def _without_path(self, step: Step) -> Iterator[str]:
        if step.kind == "when" and self._is_requested:
            yield f'response = await {self._client}.get("/")'
        elif step.kind == "given" and self._is_seeded:
            self.fixtures.add("db_session")
            yield _with("db_session.add(...)", [*self._literals(step), *self._parameters(step)])
        elif step.kind == "then":
            yield from self._assertions(step)

    def _literals(self, step: Step) -> list[str]:
        """Those of a step, each as it stands there; an Outline's are placeholders."""
        found = [one for one in literals(self._only(step)) if f"<{one}>" not in step.text]
        return [f'"{one}"' if f'"{one}"' in step.text else one for one in found]

    def _parameters(self, step: Step) -> list[str]:
        """The code of the columns whose values the step has in it, but for those in quotes."""
        bare = re.sub(r'"[^"]*"', "", step.text)
        return [code for column, code in self._columns.items() if f"<{column}>" in bare]

    def _assertions(self, step: Step) -> Iterator[str]:
        others = self._parameters(step)
        for literal in self._literals(step):
            if literal.startswith('"'):
                is_in = "not in" if _NOT.search(step.text) else "in"
                yield f"assert {filled_in(literal[1:-1], self._columns)} {is_in} response.text"
            elif _STATUS.fullmatch(literal) and "status" in step.text.lower():
                yield f"assert response.status_code == {literal}"
            else:
                others.append(literal)
        if others or not self._literals(step):
            yield _with("assert ...", others)


def _with(code: str, literals: Sequence[str]) -> str:
    return f"{code}  with {', '.join(literals)}" if literals else code


def _role(step: Step) -> str:
    found = _ROLE.search(step.text) or _AS_ROLE.search(step.text)
    if found is None:
        return ""
    return found.groupdict().get("quoted") or found["word"] or ""
