"""An invoice as the app speaks of it, and its money as it goes over the wire."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

CENT = Decimal("0.01")


def decimal_to_wire(amount: Decimal) -> str:
    """Write an amount as text with two places, in plain notation: 1E+3 becomes 1000.00."""
    return format(amount.quantize(CENT), "f")


def wire_to_decimal(written: object) -> Decimal | str:
    """Take text, or a Decimal; a JSON number has been through a float, and 0.1 is not 0.1 there."""
    if not isinstance(written, str | Decimal):
        raise ValueError('money is written as text, as in "19.90"')  # noqa: TRY004  # pydantic answers 422
    return written


Money = Annotated[
    Decimal,
    BeforeValidator(wire_to_decimal),
    Field(max_digits=18, decimal_places=2, ge=0, allow_inf_nan=False),
    PlainSerializer(decimal_to_wire, return_type=str, when_used="json"),
]


class InvoiceStatus(StrEnum):
    """How far the review has come."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


class Amounts(BaseModel):
    """The amounts of an invoice, which have to add up."""

    subtotal: Money
    tax: Money
    total: Money

    @model_validator(mode="after")
    def check_sum(self) -> Self:
        """Refuse a total that is not the sum; no cent is rounded away."""
        if self.subtotal + self.tax != self.total:
            wire = decimal_to_wire
            raise ValueError(f"{wire(self.subtotal)} + {wire(self.tax)} is not {wire(self.total)}")
        return self


class Invoice(Amounts):
    """An invoice as it was read from paper."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(min_length=1, max_length=64)
    vendor: str = Field(min_length=1, max_length=200)
    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    status: InvoiceStatus = InvoiceStatus.PENDING
    version: int = 1
