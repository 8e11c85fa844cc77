"""How does what the parser returns become features, scenarios, steps, and their business rules?"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_arena.scenarios.specs._gherkin import Language, Node, Tree, line_of
from pytest_arena.scenarios.specs._specification import (
    Feature,
    GherkinText,
    Kind,
    Row,
    ScenarioSpec,
    Step,
    canonical,
    rev_of,
)

# BR-TEST-001, REQ-12, SHOP-7. A hyphen stands in each: OAUTH2, IPV6 and ES6 are names.
_ID = re.compile(r"\b[A-Z][A-Z0-9]+(?:-[A-Z][A-Z0-9]*)*-\d+\b(?![-.]\d)")
_NAMES = re.compile(
    r"(?:AES|ASCII|CP|CVE|EC|ES|HTTP|IEC|IEEE|ISO|LATIN|PEP|RFC|RSA|SHA|TLS|UTF|WINDOWS)-"
)
_TAG = re.compile(r"@[A-Z][A-Z0-9]*(?:[-_][A-Z][A-Z0-9]*)*-\d+$")
_RULE_TAG = re.compile(r"@(?:BR|REQ)-")


def requirement_in(text: str) -> str:
    """Return the first id of a business rule in a text, or nothing.

    >>> requirement_in("Business Rule BR-TEST-001: Fixture Data Visibility (UTF-8)")
    'BR-TEST-001'
    """
    ids = (match.group() for match in _ID.finditer(text))
    return next((name for name in ids if not _NAMES.match(name)), "")


@dataclass(frozen=True, slots=True)
class ScenarioNode:
    """One scenario, and what the parser returned for it."""

    node: Node
    scenario: ScenarioSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class _Above:
    """What a scenario has from the feature and the rule that it stands in."""

    names: tuple[str, ...]
    rule: str = ""
    tags: tuple[str, ...] = ()
    texts: str = ""
    """The names and descriptions, the innermost first: a business rule may be named there."""
    steps: tuple[Step, ...] = ()


def feature_of(
    node: Node, tree: Tree, block: GherkinText
) -> tuple[Feature, Sequence[ScenarioNode]]:
    """Return the feature of a block, and its scenarios in the order of their lines."""
    reading = _Reading(block=block, language=tree.language)
    feature = reading.feature(node, tree.document)
    return feature, sorted(reading.parts, key=lambda part: part.scenario.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    block: GherkinText
    language: Language
    parts: list[ScenarioNode] = field(default_factory=list)

    def feature(self, node: Node, document: Node) -> Feature:
        name = canonical(_name(node))
        # A heading that became the name is a Markdown file's: what stands below it is nearer.
        texts = _text(node) if self.block.is_untitled else f"{name}\n{_text(node)}"
        above = _Above(names=(name,), tags=_tags(node), texts=texts)
        self.children(node, above)
        return Feature(name=name, line=line_of(node), document=document)

    def children(self, node: Node, above: _Above) -> None:
        for child in node["children"]:
            if background := child.get("background"):
                steps = (
                    *above.steps,
                    *self.steps(background, above.steps, is_background=True),
                )
                above = replace(above, steps=steps)
            elif scenario := child.get("scenario"):
                self.parts.append(
                    ScenarioNode(scenario, self.scenario(scenario, above))
                )
            elif rule := child.get("rule"):
                self.rule(rule, above)

    def rule(self, node: Node, above: _Above) -> None:
        name = canonical(_name(node))
        texts = f"{name}\n{_text(node)}\n{above.texts}"
        tags = _merged(above.tags, _tags(node))
        names = (*above.names, name)
        self.children(
            node, replace(above, names=names, rule=name, tags=tags, texts=texts)
        )

    def scenario(self, node: Node, above: _Above) -> ScenarioSpec:
        name, own = canonical(_name(node)), _tags(node)
        tags = _merged(above.tags, own)
        steps = (*above.steps, *self.steps(node, above.steps))
        names = (*above.names, name or f"(line {line_of(node)})")
        # What it is known by: @BTL-3, but not @BR-TEST-001.
        ids = (tag for tag in own if _TAG.match(tag) and not _RULE_TAG.match(tag))
        outlines = self.language.words["scenarioOutline"]
        is_outline = bool(node["examples"]) or node["keyword"] in outlines
        return ScenarioSpec(
            name=name,
            feature=above.names[0],
            rule=above.rule,
            requirement=self.requirement(own, above),
            spec=self.block.spec,
            line=line_of(node),
            key=next(ids, " :: ".join(filter(None, names))),
            rev=rev_of(steps),
            steps=steps,
            tags=tags,
            rows=tuple(_rows(node, name, steps, tags)) if is_outline else (),
            is_outline=is_outline,
            description=_text(node) if node["description"] else "",
        )

    def requirement(self, own: tuple[str, ...], above: _Above) -> str:
        """From the nearest that names one: a tag, the rule, the feature, the heading above."""
        tags = [tag for tag in (*own, *above.tags) if _RULE_TAG.match(tag)]
        # Any other id means a business rule above the scenario; on it, the scenario itself.
        tags += [tag for tag in above.tags if _TAG.match(tag)]
        return (
            tags[0][1:]
            if tags
            else requirement_in(above.texts) or self.block.requirement
        )

    def steps(
        self, node: Node, before: tuple[Step, ...], *, is_background: bool = False
    ) -> Iterator[Step]:
        kind: Kind = before[-1].kind if before else "given"
        for step in node["steps"]:
            keyword = step["keyword"]
            kind = self.language.kinds.get(keyword) or kind
            doc_string = step.get("docString")
            yield Step(
                keyword=keyword.strip(),
                kind=kind,
                text=step["text"],
                line=line_of(step),
                doc_string=doc_string and doc_string["content"],
                media_type=(doc_string and doc_string.get("mediaType")) or "",
                table=tuple(map(_cells, step["dataTable"]["rows"]))
                if "dataTable" in step
                else (),
                is_background=is_background,
            )


def _rows(
    node: Node, name: str, steps: tuple[Step, ...], tags: tuple[str, ...]
) -> Iterator[Row]:
    for examples in node["examples"]:
        columns = _cells(examples.get("tableHeader") or {"cells": []})
        here = _merged(tags, _tags(examples))
        for row in examples.get("tableBody") or ():
            values = dict(zip(columns, _cells(row), strict=False))
            filled = tuple(_filled_step(step, values) for step in steps)
            yield Row(
                values=tuple(sorted(values.items())),
                line=line_of(row),
                name=_filled(name, values),
                steps=filled,
                tags=here,
                rev=rev_of(filled),
            )


def _filled_step(step: Step, values: Mapping[str, str]) -> Step:
    return replace(
        step,
        text=_filled(step.text, values),
        doc_string=None
        if step.doc_string is None
        else _filled(step.doc_string, values),
        media_type=_filled(step.media_type, values),
        table=tuple(tuple(_filled(cell, values) for cell in row) for row in step.table),
    )


def _filled(text: str, values: Mapping[str, str]) -> str:
    if "<" in text:
        for column, value in values.items():
            text = text.replace(f"<{column}>", value)
    return text


def _name(node: Node) -> str:
    name: str = node.get("name") or ""
    # In Markdown the first line is the feature's name, whatever stands there.
    return name.lstrip("# ") if name.startswith("#") else name


def _text(node: Node) -> str:
    return "\n".join(
        line.strip() for line in (node.get("description") or "").split("\n")
    ).strip()


def _tags(node: Node) -> tuple[str, ...]:
    return tuple(tag["name"] for tag in node.get("tags") or ())


def _merged(above: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*above, *own))) if own else above


def _cells(row: Any) -> tuple[str, ...]:
    return tuple(cell["value"] for cell in row["cells"])
