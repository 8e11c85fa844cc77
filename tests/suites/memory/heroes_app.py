"""An app without an engine, as FastAPI's and SQLModel's documentation test it."""

from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Hero(Base):
    __tablename__ = "heroes"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def get_session():
    raise NotImplementedError


app = FastAPI()


@app.get("/heroes")
def heroes(session: Session = Depends(get_session)):
    return [hero.name for hero in session.scalars(select(Hero))]
