"""An app with dancers, and hooks that tests fill."""

from dancers import Base, Dancer, app, engine, get_db, maker
from fastapi import Depends
from fastapi.middleware.gzip import GZipMiddleware

__all__ = ["Base", "Dancer", "app", "engine", "get_db", "maker"]
HOOKS = {}
app.add_middleware(GZipMiddleware, minimum_size=1)


@app.get("/none")
async def none():
    return []


@app.get("/page")
async def page():
    return {"dancers": [], "all": ["Sand"]}


@app.post("/rename/{dancer_id}/{name}")
async def rename(dancer_id: int, name: str, db=Depends(get_db)):
    (await db.get(Dancer, dancer_id)).name = name
    await db.commit()
    HOOKS.get("renamed", str)()
