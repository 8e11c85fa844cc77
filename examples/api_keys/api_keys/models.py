"""The tables: keys, the documents that can be queried, and the queries that were asked."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import DateTime, ForeignKey, Sequence, Text, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

FIRST_KEY_ID = 1000


class KeyStatus(StrEnum):
    """May the key be used at all?"""

    ACTIVE = "ACTIVE"
    REVOKED = "REVOKED"


class Scope(StrEnum):
    """What the holder of a key may do."""

    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    QUERY = "query"


class Base(DeclarativeBase):
    """The parent of every table."""

    type_annotation_map: ClassVar = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
    }


class ApiKey(Base):
    """A key. Its text was shown once, to whoever made it; here is only its hash."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("name", name="uq_api_keys_name"),)

    id: Mapped[int] = mapped_column(Sequence("api_key_ids", start=FIRST_KEY_ID), primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(server_default="{}")
    status: Mapped[KeyStatus] = mapped_column(server_default=KeyStatus.ACTIVE)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Document(Base):
    """Something that queries find, by its attributes."""

    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    attributes: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))


class AskedQuery(Base):
    """A query as it was asked, and how many documents it found."""

    __tablename__ = "asked_queries"

    id: Mapped[int] = mapped_column(primary_key=True)
    key_id: Mapped[int] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    query: Mapped[dict[str, Any]]
    found: Mapped[int]
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())
