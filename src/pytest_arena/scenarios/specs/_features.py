"""Turns parsed Gherkin into features, scenarios and steps."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

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

# BR-TEST-001, REQ-12, SHOP-7. An id has a hyphen, because OAUTH2, IPV6 and ES6 are names.
_ID = re.compile(r"\b[A-Z][A-Z0-9]+(?:-[A-Z][A-Z0-9]*)*-\d+\b(?![-.]\d)")
_NAMES = re.compile(
    r"(?:AES|ASCII|CP|CVE|EC|ES|HTTP|IEC|IEEE|ISO|LATIN|PEP|RFC|RSA|SHA|TLS|UTF|WINDOWS)-"
)
_TAG = re.compile(r"@[A-Z][A-Z0-9]*(?:[-_][A-Z][A-Z0-9]*)*-\d+$")
_RULE_TAG = re.compile(r"@(?:BR|REQ)-")


def requirement_in(text: str) -> str:
    """Return the first id of a business rule in a text, or "" without one.

    >>> requirement_in("Business Rule BR-TEST-001: Fixture Data Visibility (UTF-8)")
    'BR-TEST-001'
    """
    for match in _ID.finditer(text):
        if not _NAMES.match(match.group()):
            return match.group()
    return ""


@dataclass(frozen=True, slots=True)
class ScenarioNode:
    """One scenario, with its node of the parser."""

    node: Node
    scenario: ScenarioSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """The parts that a scenario inherits from its feature and its rule."""

    block: GherkinText
    language: Language
    feature: str
    rule: str = ""
    tags: tuple[str, ...] = ()
    texts: str = ""
    """The names and descriptions, the innermost first. They may name a business rule."""
    steps: tuple[Step, ...] = ()


def feature_of(
    node: Node,
    tree: Tree,
    block: GherkinText,
) -> tuple[Feature, list[ScenarioNode]]:
    """Return the feature of a block, and its scenarios in the order of their lines."""
    name = _name(node)
    texts = _text(node)
    # The name of an untitled block is the Markdown heading. The text below has priority.
    if not block.is_untitled:
        texts = f"{name}\n{texts}"
    context = _Context(
        block=block,
        language=tree.language,
        feature=name,
        tags=_tags(node),
        texts=texts,
    )
    feature = Feature(
        name=name,
        line=line_of(node),
        document=tree.document,
    )
    return feature, list(_scenarios(node, context))


def _scenarios(node: Node, context: _Context) -> Iterator[ScenarioNode]:
    """Yield the scenarios of a feature or a rule."""
    for child in node["children"]:
        if "background" in child:
            steps = _steps(child["background"], context, is_background=True)
            context = replace(context, steps=(*context.steps, *steps))
        elif "scenario" in child:
            scenario = _scenario(child["scenario"], context)
            yield ScenarioNode(child["scenario"], scenario)
        elif "rule" in child:
            rule = child["rule"]
            name = _name(rule)
            inner = replace(
                context,
                rule=name,
                tags=_with_tags(context.tags, rule),
                texts=f"{name}\n{_text(rule)}\n{context.texts}",
            )
            yield from _scenarios(rule, inner)


def _scenario(node: Node, context: _Context) -> ScenarioSpec:
    name = _name(node)
    line = line_of(node)
    own_tags = _tags(node)
    tags = _with_tags(context.tags, node)
    steps = (*context.steps, *_steps(node, context))
    outline_words = context.language.words["scenarioOutline"]
    is_outline = bool(node["examples"]) or node["keyword"] in outline_words
    rows: list[Row] = []
    if is_outline:
        rows += _rows(node, name, steps, tags)
    names = [context.feature, context.rule, name or f"(line {line})"]
    key = " :: ".join(filter(None, names))
    for tag in reversed(own_tags):
        # ``@BTL-3`` names a scenario. ``@BR-TEST-001`` names a business rule.
        if _TAG.match(tag) and not _RULE_TAG.match(tag):
            key = tag
    return ScenarioSpec(
        name=name,
        feature=context.feature,
        rule=context.rule,
        requirement=_requirement(own_tags, context),
        spec=context.block.spec,
        line=line,
        key=key,
        rev=rev_of([*steps, *chain.from_iterable(row.steps for row in rows)]),
        steps=steps,
        tags=tags,
        rows=tuple(rows),
        is_outline=is_outline,
        description=_text(node),
    )


def _requirement(own_tags: tuple[str, ...], context: _Context) -> str:
    """Return the id of the business rule in a tag, the rule, the feature or the heading above."""
    for tag in (*own_tags, *context.tags):
        if _RULE_TAG.match(tag):
            return tag[1:]
    # Any other id tag of a scenario is the id of the scenario. Such a tag of a feature or a rule
    # is the id of a business rule.
    for tag in context.tags:
        if _TAG.match(tag):
            return tag[1:]
    return requirement_in(context.texts) or context.block.requirement


def _steps(
    node: Node,
    context: _Context,
    *,
    is_background: bool = False,
) -> Iterator[Step]:
    kind: Kind = "given"
    if context.steps:
        kind = context.steps[-1].kind
    for step in node["steps"]:
        keyword = step["keyword"]
        kind = context.language.kinds.get(keyword) or kind
        doc_string = step.get("docString") or {}
        table = step.get("dataTable") or {"rows": ()}
        yield Step(
            keyword=keyword.strip(),
            kind=kind,
            text=step["text"],
            line=line_of(step),
            doc_string=doc_string.get("content"),
            media_type=doc_string.get("mediaType") or "",
            table=tuple(map(_cells, table["rows"])),
            is_background=is_background,
        )


def _rows(
    node: Node,
    name: str,
    steps: tuple[Step, ...],
    tags: tuple[str, ...],
) -> Iterator[Row]:
    for examples in node["examples"]:
        columns = _cells(examples.get("tableHeader") or {"cells": []})
        row_tags = _with_tags(tags, examples)
        for row in examples.get("tableBody") or ():
            values = dict(zip(columns, _cells(row), strict=False))
            filled = tuple(_filled_step(step, values) for step in steps)
            yield Row(
                values=tuple(sorted(values.items())),
                line=line_of(row),
                name=_filled(name, values),
                steps=filled,
                tags=row_tags,
            )


def _filled_step(step: Step, values: Mapping[str, str]) -> Step:
    doc_string = step.doc_string
    if doc_string is not None:
        doc_string = _filled(doc_string, values)
    table = [tuple(_filled(cell, values) for cell in row) for row in step.table]
    return replace(
        step,
        text=_filled(step.text, values),
        doc_string=doc_string,
        media_type=_filled(step.media_type, values),
        table=tuple(table),
    )


def _filled(text: str, values: Mapping[str, str]) -> str:
    if "<" in text:
        for column, value in values.items():
            text = text.replace(f"<{column}>", value)
    return text


def _name(node: Node) -> str:
    name = canonical(node.get("name") or "")
    # In Markdown the parser uses the first line, with its marks, as the name of the feature.
    if name.startswith("#"):
        return name.lstrip("# ")
    return name


def _text(node: Node) -> str:
    description = node.get("description") or ""
    return "\n".join(line.strip() for line in description.split("\n")).strip()


def _tags(node: Node) -> tuple[str, ...]:
    return tuple(tag["name"] for tag in node.get("tags") or ())


def _with_tags(
    inherited: tuple[str, ...],
    node: Node,
) -> tuple[str, ...]:
    return tuple(dict.fromkeys(inherited + _tags(node)))


def _cells(row: Node) -> tuple[str, ...]:
    return tuple(cell["value"] for cell in row["cells"])
