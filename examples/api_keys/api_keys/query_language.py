"""A small query language in JSON, and what it means in SQL.

{"where": {"all": [{"field": "kind", "is": "invoice"},
                   {"not": {"field": "paid", "is": true}}]}}
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import ColumnElement, Numeric, and_, not_, or_

from api_keys.models import Document

MAX_DEPTH = 4
TOO_DEEP = "query_too_deep"


class Part(BaseModel):
    """A part of a query; a name that the language does not have is a mistake."""

    model_config = ConfigDict(extra="forbid")


class Is(Part):
    """The field has this value."""

    field: str
    value: str | int | bool = Field(alias="is")

    def sql(self) -> ColumnElement[bool]:
        """Say it in SQL."""
        return Document.attributes.contains({self.field: self.value})


class Above(Part):
    """The field is a number greater than this."""

    field: str
    above: float

    def sql(self) -> ColumnElement[bool]:
        """Say it in SQL."""
        number: ColumnElement[float] = Document.attributes[self.field].astext.cast(Numeric)
        return number > self.above


class All(Part):
    """Every condition holds."""

    conditions: list[Condition] = Field(alias="all", min_length=1)

    def sql(self) -> ColumnElement[bool]:
        """Say it in SQL."""
        return and_(*(each.sql() for each in self.conditions))


class Some(Part):
    """At least one condition holds."""

    conditions: list[Condition] = Field(alias="any", min_length=1)

    def sql(self) -> ColumnElement[bool]:
        """Say it in SQL."""
        return or_(*(each.sql() for each in self.conditions))


class Not(Part):
    """The condition does not hold."""

    condition: Condition = Field(alias="not")

    def sql(self) -> ColumnElement[bool]:
        """Say it in SQL."""
        return not_(self.condition.sql())


Condition = Is | Above | All | Some | Not


class Query(Part):
    """Which documents are wanted, and which page of them."""

    where: Condition
    limit: int = Field(default=20, ge=1, le=100)
    after: int = 0

    @model_validator(mode="before")
    @classmethod
    def _is_not_too_deep(cls, query: Any) -> Any:
        """Look before the conditions are built, each inside the other."""
        if isinstance(query, dict) and (depth := _depth(query.get("where"))) > MAX_DEPTH:
            text = "the query is {depth} levels deep, at most {most} are answered"
            raise PydanticCustomError(TOO_DEEP, text, {"depth": depth, "most": MAX_DEPTH})
        return query


def _depth(condition: Any) -> int:
    """Count how many conditions stand in one another."""
    if not isinstance(condition, dict):
        return 0
    inner = [condition.get("not"), *_listed(condition, "all"), *_listed(condition, "any")]
    return 1 + max(map(_depth, inner))


def _listed(condition: dict[str, Any], name: str) -> list[Any]:
    listed = condition.get(name)
    return listed if isinstance(listed, list) else []
