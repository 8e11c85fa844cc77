"""Who dances, whatever the tournament."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Dancer(Base):
    """A dancer; the *blaze* is the name that the audience knows."""

    __tablename__ = "dancers"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    first_name: Mapped[str] = mapped_column(String(100))
    last_name: Mapped[str] = mapped_column(String(100))
    blaze: Mapped[str] = mapped_column(String(100), index=True)
    crew: Mapped[str | None] = mapped_column(String(100))
