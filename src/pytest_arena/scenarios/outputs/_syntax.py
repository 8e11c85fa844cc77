"""Which syntax tree of Gherkin's means these scenarios, one for each feature?

It is made from the scenarios that were judged, and not from the files: these may be Markdown, may
have changed since, or may be on another machine. What the files say besides (what a feature is
called in its language, the order of a table's columns) is read where they are there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_arena.scenarios.evidence import JudgedScenario
    from pytest_arena.scenarios.specs import Feature, Row, Scenario, Step

__all__ = ["Case", "Tree", "trees"]

_TYPES = {"given": "Context", "when": "Action", "then": "Outcome"}
_MARKS = " \t#>*-"  # of Markdown, before a keyword

Node = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scenario, or one row of an Outline, with the pickle that stands for it."""

    judged: JudgedScenario
    row: Row | None
    pickle: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One feature: its address, its document, and a case for each test that it asks for."""

    uri: str
    spec: str
    document: Node
    cases: tuple[Case, ...]


def trees(
    scenarios: Sequence[JudgedScenario],
    features: Mapping[tuple[str, str], Feature],
    sources: Mapping[str, str],
    ids: Iterator[int],
) -> Iterator[Tree]:
    """One for each feature of each file. A file with several has an address for each."""
    for spec, ones in groupby(scenarios, key=lambda one: one.scenario.spec):
        of_features = _by_feature(list(ones))
        text = sources.get(spec, "").splitlines()
        for name, judged in of_features.items():
            feature = features.get((spec, name))
            line = feature.line if feature else max(1, judged[0].scenario.line - 1)
            uri = spec if len(of_features) == 1 else f"{spec}#L{line}"
            yield _Grower(uri, text, ids).tree(judged, feature, line)


def _by_feature(ones: list[JudgedScenario]) -> dict[str, list[JudgedScenario]]:
    found: dict[str, list[JudgedScenario]] = {}
    for one in ones:
        found.setdefault(one.scenario.feature, []).append(one)
    return found


@dataclass(slots=True)
class _Grower:
    """Makes one tree. Gherkin's nodes know each other by ids, which count through the output."""

    uri: str
    text: list[str]
    ids: Iterator[int]
    _steps: dict[int, str] = field(default_factory=dict)  # of a Background: line → id
    _tags: dict[str, str] = field(default_factory=dict)  # of the feature: name → id

    def tree(self, ones: list[JudgedScenario], feature: Feature | None, line: int) -> Tree:
        """Return it, scenarios in the order of their lines."""
        language = feature.language if feature else "en"
        shared = _shared([one.scenario for one in ones])
        tags = self._tag_nodes(feature.tags if feature else (), line)
        self._tags = {tag["name"]: tag["id"] for tag in tags}
        children = self._background(shared)
        cases: list[Case] = []
        for rule, inside in groupby(ones, key=lambda one: one.scenario.rule):
            nodes, found = self._children(list(inside), shared, language)
            children += [_rule(rule, nodes, self._id())] if rule else nodes
            cases += found
        node = {
            "location": {"line": line},
            "tags": tags,
            "language": language,
            "keyword": self._keyword(line, "Feature"),
            "name": ones[0].scenario.feature,
            "description": feature.description if feature else "",
            "children": children,
        }
        document = {"uri": self.uri, "feature": node, "comments": []}
        return Tree(uri=self.uri, spec=ones[0].scenario.spec, document=document, cases=tuple(cases))

    def _children(
        self, ones: list[JudgedScenario], shared: dict[int, Step], language: str
    ) -> tuple[list[Node], list[Case]]:
        own = _backgrounds([one.scenario for one in ones])
        nodes = self._background({line: own[line] for line in own if line not in shared})
        cases: list[Case] = []
        for one in ones:
            node = self._scenario(one.scenario)
            nodes.append({"scenario": node})
            cases += self._cases(one, node, language)
        return nodes, cases

    def _background(self, steps: Mapping[int, Step]) -> list[Node]:
        if not steps:
            return []
        nodes = [self._step(step) for step in steps.values()]
        self._steps |= {node["location"]["line"]: node["id"] for node in nodes}
        node = {
            "location": {"line": max(1, min(steps) - 1)},
            "keyword": "Background",
            "name": "",
            "description": "",
            "steps": nodes,
            "id": self._id(),
        }
        return [{"background": node}]

    def _scenario(self, scenario: Scenario) -> Node:
        own = [step for step in scenario.steps if not step.is_background]
        return {
            "location": {"line": scenario.line},
            "tags": self._tag_nodes(
                [name for name in scenario.tags if name not in self._tags], scenario.line
            ),
            "keyword": self._keyword(
                scenario.line, "Scenario Outline" if scenario.is_outline else "Scenario"
            ),
            "name": scenario.name,
            "description": scenario.description,
            "steps": [self._step(step) for step in own],
            "examples": [self._examples(rows, scenario.tags) for rows in _tables(scenario.rows)],
            "id": self._id(),
        }

    def _step(self, step: Step) -> Node:
        node: Node = {
            "location": {"line": step.line},
            "keyword": f"{step.keyword} ",
            "keywordType": _TYPES[step.kind],
            "text": step.text,
            "id": self._id(),
        }
        if step.doc_string is not None:
            media = {"mediaType": step.media_type} if step.media_type else {}
            node["docString"] = {
                "location": {"line": step.line + 1},
                "content": step.doc_string,
                "delimiter": '"""',
                **media,
            }
        elif step.table:
            node["dataTable"] = {
                "location": {"line": step.line + 1},
                "rows": [
                    self._table_row(cells, step.line + number)
                    for number, cells in enumerate(step.table, start=1)
                ],
            }
        return node

    def _examples(self, rows: list[Row], tags: Sequence[str]) -> Node:
        line = max(1, rows[0].line - 1)
        columns = self._columns(rows[0], line)
        body = [
            self._table_row([dict(row.values)[name] for name in columns], row.line) for row in rows
        ]
        return {
            "location": {"line": max(1, line - 1)},
            "tags": self._tag_nodes([name for name in rows[0].tags if name not in tags], line),
            "keyword": "Examples",
            "name": "",
            "description": "",
            "tableHeader": self._table_row(columns, line),
            "tableBody": body,
            "id": self._id(),
        }

    def _columns(self, row: Row, line: int) -> list[str]:
        """In the order of the file, where that line holds them; else sorted."""
        names = [name for name, _ in row.values]
        cells = [cell.strip() for cell in self._at(line).strip(" \t|").split("|")]
        return cells if sorted(cells) == sorted(names) else names

    def _table_row(self, cells: Sequence[str], line: int) -> Node:
        return {
            "location": {"line": line},
            "cells": [{"location": {"line": line}, "value": cell} for cell in cells],
            "id": self._id(),
        }

    def _tag_nodes(self, names: Sequence[str], line: int) -> list[Node]:
        return [{"location": {"line": line}, "name": name, "id": self._id()} for name in names]

    def _cases(self, one: JudgedScenario, node: Node, language: str) -> Iterator[Case]:
        tables = [(table, row) for table in node["examples"] for row in table["tableBody"]]
        for row, (table, row_node) in zip(one.scenario.rows, tables, strict=True):
            tags = [*node["tags"], *table["tags"]]
            yield self._case(one, row, {**node, "tags": tags}, language, row_node["id"])
        if not one.scenario.rows:
            yield self._case(one, None, node, language)

    def _case(
        self, one: JudgedScenario, row: Row | None, node: Node, language: str, *row_ids: str
    ) -> Case:
        steps = row.steps if row else one.scenario.steps
        own = iter([step["id"] for step in node["steps"]])
        # A Background's step is another node's, which several scenarios share.
        ids = [self._steps[step.line] if step.is_background else next(own) for step in steps]
        pickle = {
            "id": self._id(),
            "uri": self.uri,
            "location": {"line": row.line if row else one.scenario.line},
            "name": row.name if row else one.scenario.name,
            "language": language,
            "steps": [
                self._pickle_step(step, [node_id, *row_ids])
                for step, node_id in zip(steps, ids, strict=True)
            ],
            "tags": [
                {"name": name, "astNodeId": tag}
                for name, tag in {**self._tags, **_by_name(node["tags"])}.items()
            ],
            "astNodeIds": [node["id"], *row_ids],
        }
        return Case(judged=one, row=row, pickle=pickle)

    def _pickle_step(self, step: Step, nodes: list[str]) -> Node:
        node: Node = {
            "id": self._id(),
            "text": step.text,
            "type": _TYPES[step.kind],
            "astNodeIds": nodes,
        }
        if step.doc_string is not None:
            media = {"mediaType": step.media_type} if step.media_type else {}
            node["argument"] = {"docString": {"content": step.doc_string, **media}}
        elif step.table:
            rows = [{"cells": [{"value": cell} for cell in cells]} for cells in step.table]
            node["argument"] = {"dataTable": {"rows": rows}}
        return node

    def _keyword(self, line: int, english: str) -> str:
        """As the file has it before the colon, in its language."""
        word, colon, _ = self._at(line).partition(":")
        return word.strip(_MARKS) or english if colon else english

    def _at(self, line: int) -> str:
        return self.text[line - 1] if 0 < line <= len(self.text) else ""

    def _id(self) -> str:
        return str(next(self.ids))


def _rule(name: str, children: list[Node], node_id: str) -> Node:
    first: int = next(iter(children[0].values()))["location"]["line"]
    node = {
        "location": {"line": max(1, first - 1)},
        "tags": [],
        "keyword": "Rule",
        "name": name,
        "description": "",
        "children": children,
        "id": node_id,
    }
    return {"rule": node}


def _by_name(tags: list[Node]) -> dict[str, str]:
    return {tag["name"]: tag["id"] for tag in tags}


def _shared(scenarios: list[Scenario]) -> dict[int, Step]:
    """The Background of the feature itself: what the scenarios outside of rules begin with.

    Where all are in rules it is what these have in common.
    """
    if plain := [one for one in scenarios if not one.rule]:
        return _backgrounds(plain)
    rules = [_backgrounds(list(ones)) for _, ones in groupby(scenarios, key=lambda one: one.rule)]
    return {line: rules[0][line] for line in rules[0] if all(line in rule for rule in rules)}


def _backgrounds(scenarios: list[Scenario]) -> dict[int, Step]:
    steps = [step for one in scenarios for step in one.steps if step.is_background]
    return {step.line: step for step in sorted(steps, key=lambda step: step.line)}


def _tables(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that stand below each other, with the same columns."""
    tables: list[list[Row]] = []
    for row in rows:
        if tables and _goes_on(tables[-1][-1], row):
            tables[-1].append(row)
        else:
            tables.append([row])
    return tables


def _goes_on(last: Row, row: Row) -> bool:
    columns = [[name for name, _ in one.values] for one in (last, row)]
    return row.line == last.line + 1 and columns[0] == columns[1] and last.tags == row.tags
