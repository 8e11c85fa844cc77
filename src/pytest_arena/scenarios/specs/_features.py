"""How does what the parser returns become features, scenarios, steps?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_arena.scenarios.specs._requirements import is_id_tag, requirement_in, requirement_tag
from pytest_arena.scenarios.specs._revisions import canonical, rev_of
from pytest_arena.scenarios.specs._values import Feature, Row, Scenario, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena.scenarios.specs._blocks import Block
    from pytest_arena.scenarios.specs._values import Kind
    from pytest_arena.scenarios.specs.gherkin import Node, Tree

__all__ = ["Found", "Grown", "features"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """One scenario, and what the parser returned for it."""

    node: Node
    scenario: Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What stands in one block."""

    feature: Feature
    node: Node
    scenarios: tuple[Grown, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Above:
    """What a scenario has from the feature and the rule that it stands in."""

    names: tuple[str, ...]
    rule: str = ""
    tags: tuple[str, ...] = ()
    told: str = ""
    """The names and descriptions, the innermost first: a business rule may be named there."""
    steps: tuple[Step, ...] = ()


def features(tree: Tree, block: Block) -> Found | None:
    """Return the feature of a block with its scenarios, in the order of their lines."""
    if tree.feature is None:
        return None
    reading = _Reading(block=block, kinds=tree.language.kinds, outlines=tree.language.outlines)
    return reading.feature(tree.feature)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    block: Block
    kinds: Mapping[str, Kind | None]
    outlines: frozenset[str]
    parts: list[Grown] = field(default_factory=list)

    def feature(self, node: Node) -> Found:
        name, tags = canonical(_name(node)), _tags(node)
        described = _text(node)
        # A heading that became the name is a Markdown file's: what stands below it is nearer.
        told = described if self.block.is_untitled else f"{name}\n{described}"
        above = _Above(names=(name,), tags=tags, told=told)
        self.children(node, above)
        value = Feature(
            name=name,
            spec=self.block.spec,
            line=_line(node),
            language=node["language"],
            requirement=self.requirement((), above),
            description=described,
            tags=tags,
        )
        self.parts.sort(key=lambda part: part.scenario.line)
        return Found(feature=value, node=node, scenarios=tuple(self.parts))

    def children(self, node: Node, above: _Above) -> None:
        for child in node["children"]:
            if background := child.get("background"):
                steps = (*above.steps, *self.steps(background, above.steps, is_background=True))
                above = replace(above, steps=steps)
            elif scenario := child.get("scenario"):
                self.parts.append(Grown(node=scenario, scenario=self.scenario(scenario, above)))
            elif rule := child.get("rule"):
                self.rule(rule, above)

    def rule(self, node: Node, above: _Above) -> None:
        name = canonical(_name(node))
        told = f"{name}\n{_text(node)}\n{above.told}"
        tags = _merged(above.tags, _tags(node))
        names = (*above.names, name)
        self.children(node, replace(above, names=names, rule=name, tags=tags, told=told))

    def scenario(self, node: Node, above: _Above) -> Scenario:
        name, own = canonical(_name(node)), _tags(node)
        tags = _merged(above.tags, own)
        steps = (*above.steps, *self.steps(node, above.steps))
        is_outline = bool(node["examples"]) or node["keyword"] in self.outlines
        return Scenario(
            name=name,
            feature=above.names[0],
            rule=above.rule,
            requirement=self.requirement(own, above),
            spec=self.block.spec,
            line=_line(node),
            key=_key(own, (*above.names, name or f"(line {_line(node)})")),
            rev=rev_of(steps),
            steps=steps,
            tags=tags,
            rows=tuple(_rows(node, name, steps, tags)) if is_outline else (),
            is_outline=is_outline,
            description=_text(node) if node["description"] else "",
        )

    def requirement(self, own: tuple[str, ...], above: _Above) -> str:
        """From the nearest that names one: a tag, the rule, the feature, the heading above."""
        tagged = requirement_tag((*own, *above.tags), above.tags) if own or above.tags else ""
        return tagged or requirement_in(above.told) or self.block.requirement

    def steps(
        self, node: Node, before: tuple[Step, ...], *, is_background: bool = False
    ) -> Iterator[Step]:
        kind: Kind = before[-1].kind if before else "given"
        for step in node["steps"]:
            keyword = step["keyword"]
            kind = self.kinds.get(keyword) or kind
            doc_string = step.get("docString")
            yield Step(
                keyword=keyword.strip(),
                kind=kind,
                text=step["text"],
                line=step["location"]["line"],
                doc_string=doc_string and doc_string["content"],
                media_type=(doc_string and doc_string.get("mediaType")) or "",
                table=_table(step["dataTable"]["rows"]) if "dataTable" in step else (),
                is_background=is_background,
            )


def _rows(node: Node, name: str, steps: tuple[Step, ...], tags: tuple[str, ...]) -> Iterator[Row]:
    for examples in node["examples"]:
        columns = _cells(examples.get("tableHeader") or {"cells": []})
        here = _merged(tags, _tags(examples))
        for row in examples.get("tableBody") or ():
            values = dict(zip(columns, _cells(row), strict=False))
            filled = tuple(_filled_step(step, values) for step in steps)
            yield Row(
                values=tuple(sorted(values.items())),
                line=_line(row),
                name=_filled(name, values),
                steps=filled,
                tags=here,
                rev=rev_of(filled),
            )


def _filled_step(step: Step, values: Mapping[str, str]) -> Step:
    return replace(
        step,
        text=_filled(step.text, values),
        doc_string=None if step.doc_string is None else _filled(step.doc_string, values),
        media_type=_filled(step.media_type, values),
        table=tuple(tuple(_filled(cell, values) for cell in row) for row in step.table),
    )


def _filled(text: str, values: Mapping[str, str]) -> str:
    if "<" in text:
        for column, value in values.items():
            text = text.replace(f"<{column}>", value)
    return text


def _key(own: tuple[str, ...], names: tuple[str, ...]) -> str:
    return next(filter(is_id_tag, own), "") or " :: ".join(filter(None, names))


def _name(node: Node) -> str:
    name: str = node.get("name") or ""
    # In Markdown the first line is the feature's name, whatever stands there.
    return name.lstrip("# ") if name.startswith("#") else name


def _line(node: Node) -> int:
    line: int = node["location"]["line"]
    return line


def _text(node: Node) -> str:
    return "\n".join(line.strip() for line in (node.get("description") or "").split("\n")).strip()


def _tags(node: Node) -> tuple[str, ...]:
    return tuple(tag["name"] for tag in node.get("tags") or ())


def _merged(above: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*above, *own))) if own else above


def _table(rows: list[Any]) -> tuple[tuple[str, ...], ...]:
    return tuple(map(_cells, rows))


def _cells(row: Any) -> tuple[str, ...]:
    return tuple(cell["value"] for cell in row["cells"])
