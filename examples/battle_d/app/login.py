"""Log in by a signed link, and stay logged in by a signed cookie. Both hold the user's address."""

import os
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database
from app.models import Role, User

COOKIE = "battle_d"
signer = URLSafeTimedSerializer(os.environ.get("SECRET_KEY", "for development"))


def link_for(email: str) -> str:
    """Return the link by which a user logs in."""
    return f"/auth/verify?token={signer.dumps(email)}"


async def find_user(token: str, db: AsyncSession) -> User:
    """Return the user that a link or a cookie was signed for."""
    try:
        email = signer.loads(token, max_age=12 * 60 * 60)
    except BadSignature:
        raise HTTPException(401) from None
    user = await db.scalar(select(User).where(User.email == email))
    if user is None:
        raise HTTPException(401)
    return user


def require(*roles: Role) -> Callable[..., Awaitable[User]]:
    """Return a dependency that lets users of these roles pass, and the admin."""

    async def check(request: Request, db: Database) -> User:
        user = await find_user(request.cookies.get(COOKIE, ""), db)
        if user.role not in (Role.ADMIN, *roles):
            raise HTTPException(403)
        return user

    return check


Staff = Annotated[User, Depends(require(Role.STAFF))]
Mc = Annotated[User, Depends(require(Role.MC))]
Judge = Annotated[User, Depends(require(Role.JUDGE))]
Crew = Annotated[User, Depends(require(*Role))]
