"""Who may log in, and as what."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import DateTime, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Role(StrEnum):
    """What a user does at the event."""

    ADMIN = "admin"
    STAFF = "staff"
    MC = "mc"
    JUDGE = "judge"


class User(Base):
    """Somebody who works at the event and logs in by a link sent to an e-mail address."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[Role]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
