"""Make the tables, and what a developer works with: `python -m api_keys.dev_data`.

The database itself is made by hand: `createdb api_keys`.
"""

import asyncio

from api_keys.database import dispose_db, get_session_factory, init_db
from api_keys.models import ApiKey, AskedQuery, Base, Document, Scope
from api_keys.tokens import new_token, prefix_of, sha256_of

NAMES = ("developer", "dashboard", "nightly export")
DOCUMENTS = 40


async def make_dev_data() -> str:
    """Make 3 keys that may do everything, 40 documents and a query; give the first key's text."""
    await init_db()
    tokens = {name: new_token() for name in NAMES}
    async with get_session_factory().begin() as session:
        connection = await session.connection()
        await connection.run_sync(Base.metadata.create_all)
        keys = [_key(name, token) for name, token in tokens.items()]
        session.add_all([*keys, *map(_document, range(1, DOCUMENTS + 1))])
        await session.flush()
        query = {"where": {"field": "kind", "is": "invoice"}}
        session.add(AskedQuery(key_id=keys[0].id, query=query, found=DOCUMENTS))
    await dispose_db()
    return tokens[NAMES[0]]


def _key(name: str, token: str) -> ApiKey:
    return ApiKey(name=name, prefix=prefix_of(token), sha256=sha256_of(token), scopes=[*Scope])


def _document(number: int) -> Document:
    attributes = {"kind": "invoice", "total": number * 10, "paid": number % 2 == 0}
    return Document(title=f"Invoice {number}", attributes=attributes)


if __name__ == "__main__":
    print(f"The developer's key: {asyncio.run(make_dev_data())}")
