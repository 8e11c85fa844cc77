"""Who asks, and may they? Each route names the scope that it wants."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, Header
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api_keys.database import Db
from api_keys.models import ApiKey, KeyStatus, Scope
from api_keys.problems import Problem
from api_keys.rate_limit import LIMIT, WINDOW_SECONDS, limiter
from api_keys.tokens import prefix_of, sha256_of


async def authenticate(db: Db, authorization: Annotated[str, Header()] = "") -> ApiKey:
    """Find the key of the request, count its use, and write down when it was used."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthorized("A key is needed: Authorization: Bearer ak_...")
    key = await _find(db, token)
    if seconds := limiter.seconds_to_wait(key.id):
        detail = f"A key may be used {LIMIT} times in {WINDOW_SECONDS} seconds."
        raise Problem(429, detail, Retry_After=str(seconds))
    key.last_used_at = datetime.now(UTC)
    await db.commit()
    return key


async def _find(db: AsyncSession, token: str) -> ApiKey:
    key = await db.scalar(select(ApiKey).where(ApiKey.prefix == prefix_of(token)))
    if key is None or not compare_digest(key.sha256, sha256_of(token)):
        raise _unauthorized("This key is not known.")
    if key.status is KeyStatus.REVOKED:
        raise _unauthorized("This key was revoked.")
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        raise _unauthorized("This key has expired.")
    return key


def _unauthorized(detail: str) -> Problem:
    return Problem(401, detail, WWW_Authenticate="Bearer")


CurrentKey = Annotated[ApiKey, Depends(authenticate)]


def wants(scope: Scope) -> Callable[[ApiKey], Awaitable[None]]:
    """Let only those in whose key has the scope."""

    async def check(key: CurrentKey) -> None:
        if scope not in key.scopes:
            raise Problem(403, f"This key lacks the scope {scope}.")

    return check
