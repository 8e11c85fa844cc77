"""An app with battles, whose engine points at the developer's file."""

from fastapi import Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine("sqlite+aiosqlite:///dev.db")
session_maker = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Battle(Base):
    __tablename__ = "battles"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(default="PENDING")


class Judge(Base):
    __tablename__ = "judges"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def get_db():
    async with session_maker() as session:
        yield session


app = FastAPI()


class Templated(JSONResponse):
    """Names its template to test clients, as a response of Jinja does."""

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.debug", "info": {"template": "", "context": {}}})
        await super().__call__(scope, receive, send)


@app.get("/battles", response_class=Templated)
async def battles(db: AsyncSession = Depends(get_db)):
    return [
        {"id": battle.id, "name": battle.name, "status": battle.status}
        for battle in await db.scalars(select(Battle).order_by(Battle.id))
    ]


@app.post("/battles/{battle_id}/start")
async def start(battle_id: int, db: AsyncSession = Depends(get_db)):
    battle = await db.get(Battle, battle_id)
    if battle is None:
        raise HTTPException(404)
    if battle.status != "PENDING":
        raise HTTPException(409)
    battle.status = "ACTIVE"
    await db.commit()
    return {"status": battle.status}


@app.get("/motto")
def motto():  # in a thread of anyio, whose code has assertions
    return "peace"


@app.get("/judges")
async def judges(db: AsyncSession = Depends(get_db)):
    return list(await db.scalars(select(Judge.name)))


@app.post("/judges/{name}")
async def invite(name: str, db: AsyncSession = Depends(get_db)):
    db.add(Judge(name=name))
    await db.flush()
    if name == "Ann":
        raise HTTPException(409)
    if name != "Dan":
        await db.commit()
    return name


@app.websocket("/live")
async def live(socket: WebSocket):
    await socket.accept()
    await socket.send_text("PENDING")
    await socket.close()


async def end_all():
    async with session_maker() as session:
        for battle in await session.scalars(select(Battle)):
            battle.status = "ENDED"
        await session.commit()
