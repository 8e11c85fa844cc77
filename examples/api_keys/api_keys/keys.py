"""Keys: made, listed, revoked, deleted."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from api_keys.access import CurrentKey, wants
from api_keys.database import Db
from api_keys.models import ApiKey, KeyStatus, Scope
from api_keys.problems import Problem
from api_keys.tokens import new_token, prefix_of, sha256_of

router = APIRouter(prefix="/keys")
READ = Depends(wants(Scope.KEYS_READ))
WRITE = Depends(wants(Scope.KEYS_WRITE))


class NewKey(BaseModel):
    """What a key is made from."""

    name: str = Field(min_length=3, max_length=50)
    scopes: list[Scope] = Field(min_length=1)
    expires_at: AwareDatetime | None = None

    @field_validator("expires_at")
    @classmethod
    def _is_in_the_future(cls, moment: datetime | None) -> datetime | None:
        if moment is not None and moment <= datetime.now(UTC):
            raise ValueError("a new key cannot have expired")
        return moment


class ShownKey(BaseModel):
    """What may be shown of a key at any time."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    prefix: str
    scopes: list[Scope]
    status: KeyStatus
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class MadeKey(ShownKey):
    """A key with its text, which is shown this once."""

    token: str


class KeyPage(BaseModel):
    """Some of the keys, and the id that the next page begins after, if there is one."""

    items: list[ShownKey]
    next: int | None


@router.post("", status_code=201, dependencies=[WRITE])
async def make_key(new: NewKey, db: Db) -> MadeKey:
    """Make a key, unless another has its name."""
    token = new_token()
    key = ApiKey(**new.model_dump(), prefix=prefix_of(token), sha256=sha256_of(token))
    db.add(key)
    try:
        await db.commit()
    except IntegrityError:
        raise Problem(409, f"There is a key with the name {new.name}.") from None
    await db.refresh(key)
    return MadeKey(**ShownKey.model_validate(key).model_dump(), token=token)


@router.get("", dependencies=[READ])
async def list_keys(
    db: Db,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[int, Query(ge=0)] = 0,
) -> KeyPage:
    """List the keys, a page at a time."""
    wanted = select(ApiKey).where(ApiKey.id > after).order_by(ApiKey.id).limit(limit + 1)
    found = [ShownKey.model_validate(key) for key in await db.scalars(wanted)]
    items = found[:limit]
    return KeyPage(items=items, next=items[-1].id if len(found) > limit else None)


@router.get("/me")
async def show_my_key(key: CurrentKey) -> ShownKey:
    """Show the key that the request was made with."""
    return ShownKey.model_validate(key)


@router.get("/{key_id}", dependencies=[READ])
async def show_key(key_id: int, db: Db) -> ShownKey:
    """Show one key."""
    return ShownKey.model_validate(await _get(db, key_id))


@router.post("/{key_id}/revoke", dependencies=[WRITE])
async def revoke_key(key_id: int, db: Db) -> ShownKey:
    """Refuse the key from now on; what it has asked stays."""
    key = await _get(db, key_id)
    key.status = KeyStatus.REVOKED
    await db.commit()
    return ShownKey.model_validate(key)


@router.delete("/{key_id}", status_code=204, dependencies=[WRITE])
async def delete_key(key_id: int, db: Db) -> Response:
    """Delete the key; the database deletes what it has asked."""
    await db.delete(await _get(db, key_id))
    await db.commit()
    return Response(status_code=204)


async def _get(db: AsyncSession, key_id: int) -> ApiKey:
    key = await db.get(ApiKey, key_id)
    if key is None:
        raise Problem(404, f"There is no key {key_id}.")
    return key
