"""Which server do the test databases live on?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql.servers._base import Server, Source, Unavailable, Wanted
from pytest_arena._postgresql.servers._binaries import BinariesSource
from pytest_arena._postgresql.servers._service import ServiceSource
from pytest_arena._postgresql.servers._url import UrlSource
from pytest_arena._postgresql.servers._wheel import WheelSource
from pytest_arena.errors import ServerError, redact

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SOURCES", "Server", "Wanted", "find_server"]

SOURCES: tuple[Source, ...] = (
    ServiceSource(),
    BinariesSource(),
    WheelSource(),
)
_WHY = "arena makes a database for each test, on a server where it may create some"
_FORM = "ARENA_DATABASE=postgresql://user@host:5432/postgres pytest …"


def find_server(wanted: Wanted, *, sources: Sequence[Source] = SOURCES) -> Server:
    """Return the server that was asked for, or the first that there is.

    Raises:
        ServerError: it names every source that was tried, and why each failed.
    """
    return _named(wanted) if wanted.url else _any(wanted, sources)


def _named(wanted: Wanted) -> Server:
    try:
        return UrlSource().find(wanted)
    except Unavailable as reason:
        raise ServerError(
            f"the server for the tests cannot be used: {reason}",
            why=_WHY,
            cause=f"{redact(wanted.url)} in {wanted.place}",
            fix=reason.fix or _FORM,
        ) from reason


def _any(wanted: Wanted, sources: Sequence[Source]) -> Server:
    reasons: list[str] = []
    for source in sources:
        try:
            return source.find(wanted)
        except Unavailable as reason:
            reasons.append(f"{source.name}: {' '.join(str(reason).split())}")
    raise ServerError(
        "there is no PostgreSQL for the tests",
        why=_WHY,
        cause="\n".join(reasons),
        fix=f"pip install 'pytest-arena[postgresql]'\nor {_FORM}",
    )
