"""The app: its routes, its refusals, and its life from start to stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api_keys import keys, problems, queries
from api_keys.database import dispose_db, init_db


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Without this, no request has a database."""
    await init_db()
    yield
    await dispose_db()


app = FastAPI(title="API keys", lifespan=lifespan)
app.include_router(keys.router)
app.include_router(queries.router)
problems.install(app)
