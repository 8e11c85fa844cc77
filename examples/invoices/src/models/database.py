"""The production engine, the session of a request, and the service that keeps invoices."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

from sqlalchemy import Dialect, ForeignKey, String, TypeDecorator, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.orm.exc import StaleDataError

from src.models.invoice import Amounts, Invoice, InvoiceStatus, decimal_to_wire

PROJECT = Path(__file__).resolve().parents[2]
DEVELOPERS_DATABASE = PROJECT / "invoices.db"

engine = create_async_engine(
    os.environ.get("DATABASE_URL", f"sqlite+aiosqlite:///{DEVELOPERS_DATABASE}")
)
async_session_maker = async_sessionmaker(engine, expire_on_commit=False)


class ExactDecimal(TypeDecorator[Decimal]):
    """A Decimal kept as text: SQLite has no exact numbers, and a float loses cents."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # SQLAlchemy passes it
        """Write it in plain notation."""
        return None if value is None else decimal_to_wire(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:  # noqa: ARG002  # SQLAlchemy passes it
        """Read it back, to the cent."""
        return None if value is None else Decimal(value)


class Base(DeclarativeBase):
    """All tables of the app."""

    type_annotation_map = {Decimal: ExactDecimal}  # noqa: RUF012  # SQLAlchemy reads it on the class


class InvoiceRow(Base):
    """An invoice; whoever writes it has to know the version that is there."""

    __tablename__ = "invoices"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    vendor: Mapped[str] = mapped_column(String(200))
    currency: Mapped[str] = mapped_column(String(3))
    subtotal: Mapped[Decimal]
    tax: Mapped[Decimal]
    total: Mapped[Decimal]
    status: Mapped[InvoiceStatus] = mapped_column(default=InvoiceStatus.PENDING)
    version: Mapped[int] = mapped_column(default=1)
    reviews: Mapped[list["ReviewRow"]] = relationship(lazy="selectin", order_by="ReviewRow.id")

    # Each UPDATE asks for the version that was read, and counts it up.
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012  # SQLAlchemy reads it on the class


class ReviewRow(Base):
    """Who decided what, on which version."""

    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(primary_key=True)
    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"))
    reviewer: Mapped[str] = mapped_column(String(100))
    decision: Mapped[InvoiceStatus]
    of_version: Mapped[int]


class UnknownInvoiceError(LookupError):
    """There is no invoice with this id."""


class DuplicateInvoiceError(ValueError):
    """An invoice with this id was there before."""


class StaleVersionError(RuntimeError):
    """Somebody else has changed the invoice since it was read."""

    def __init__(self, current: int) -> None:
        super().__init__(f"the invoice is at version {current} by now")
        self.current = current


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give one session to each request."""
    async with async_session_maker() as session:
        yield session


async def init_db() -> None:
    """Create every table that is missing."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


@asynccontextmanager
async def _in(db: AsyncSession | None) -> AsyncIterator[AsyncSession]:
    """Work in the caller's session, or in one of our own."""
    if db is not None:
        yield db
        return
    async with async_session_maker() as session:
        yield session


class DatabaseService:
    """All that the app does with invoices. What changes something commits it."""

    @staticmethod
    async def save_invoice(invoice: Invoice, *, db: AsyncSession | None = None) -> Invoice:
        """Add an invoice that is not there yet."""
        async with _in(db) as session:
            session.add(InvoiceRow(**invoice.model_dump(exclude={"version"})))
            try:
                await session.commit()
            except IntegrityError as error:
                await session.rollback()
                raise DuplicateInvoiceError(f"{invoice.id} is there already") from error
        return invoice.model_copy(update={"version": 1})

    @staticmethod
    async def get_invoice(invoice_id: str, *, db: AsyncSession | None = None) -> Invoice | None:
        """Look an invoice up."""
        async with _in(db) as session:
            row = await session.get(InvoiceRow, invoice_id)
            return row and Invoice.model_validate(row)

    @staticmethod
    async def list_invoices(
        status: InvoiceStatus | None = None, *, db: AsyncSession | None = None
    ) -> list[Invoice]:
        """List the invoices, or those that have come so far in their review."""
        wanted = select(InvoiceRow).order_by(InvoiceRow.id)
        if status is not None:
            wanted = wanted.where(InvoiceRow.status == status)
        async with _in(db) as session:
            return [Invoice.model_validate(row) for row in await session.scalars(wanted)]

    @staticmethod
    async def list_reviewers(invoice_id: str, *, db: AsyncSession | None = None) -> list[str]:
        """Name who has decided on an invoice, the first one first."""
        wanted = select(ReviewRow).where(ReviewRow.invoice_id == invoice_id).order_by(ReviewRow.id)
        async with _in(db) as session:
            return [review.reviewer for review in await session.scalars(wanted)]

    @staticmethod
    async def review_invoice(
        invoice_id: str,
        *,
        expected_version: int,
        decision: InvoiceStatus,
        reviewer: str,
        corrected: Amounts | None = None,
        db: AsyncSession | None = None,
    ) -> Invoice:
        """Write a decision down, unless the invoice has changed since the reviewer read it."""
        async with _in(db) as session:
            row = await _load(session, invoice_id, expected_version)
            row.reviews.append(
                ReviewRow(reviewer=reviewer, decision=decision, of_version=expected_version)
            )
            row.status = decision
            for name, amount in (corrected.model_dump() if corrected else {}).items():
                setattr(row, name, amount)
            await _commit(session, expected_version)
            return Invoice.model_validate(row)


async def _load(session: AsyncSession, invoice_id: str, expected_version: int) -> InvoiceRow:
    row = await session.get(InvoiceRow, invoice_id)
    if row is None:
        raise UnknownInvoiceError(f"there is no invoice {invoice_id}")
    if row.version != expected_version:
        raise StaleVersionError(row.version)
    return row


async def _commit(session: AsyncSession, version: int) -> None:
    """Commit; whoever was faster since the row was read has won."""
    try:
        await session.commit()
    except StaleDataError as error:
        await session.rollback()
        raise StaleVersionError(version + 1) from error
