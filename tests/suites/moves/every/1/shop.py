from database import URL
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine(URL)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    price: Mapped[int]


def get_db():
    with Session(engine) as session:
        yield session


app = FastAPI()


@app.get("/items")
def items(db: Session = Depends(get_db)) -> dict[str, int]:
    return {item.name: item.price for item in db.scalars(select(Item))}


@app.put("/items/{name}/{price}")
def set_price(name: str, price: int, db: Session = Depends(get_db)) -> None:
    item = db.scalar(select(Item).where(Item.name == name))
    if item is None:
        raise HTTPException(404)
    item.price = price
    db.commit()
