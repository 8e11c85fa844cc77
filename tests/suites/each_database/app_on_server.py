"""An app whose engine is on a server. Its tests use other engines, on SQLite."""

from fastapi import Depends, FastAPI
from models import Order
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

engine = create_engine("postgresql+psycopg://shop@shop-db:5432/shop")
app = FastAPI()


def get_db():
    with Session(engine) as session:
        yield session


@app.get("/orders")
def orders(db: Session = Depends(get_db)) -> list[str]:
    return list(db.scalars(select(Order.item).order_by(Order.id)))


def create_notes(connection):
    connection.execute(text("CREATE TABLE notes (text TEXT)"))
