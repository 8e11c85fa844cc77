"""A FastAPI app with a sync engine: each request runs in a thread."""

import os

from fastapi import Depends, FastAPI, HTTPException
from models import Order, Stock
from sqlalchemy import create_engine, select
from sqlalchemy.orm import sessionmaker

engine = create_engine(os.environ["DATABASE_URL"])
maker = sessionmaker(engine)
app = FastAPI()


def get_db():
    with maker() as session:
        yield session


@app.get("/orders")
def orders(db=Depends(get_db)):
    return list(db.scalars(select(Order.item).order_by(Order.id)))


@app.post("/orders/{item}", status_code=201)
def order(item: str, db=Depends(get_db)):
    stock = db.get(Stock, item)
    if stock is None:
        raise HTTPException(404)
    stock.amount -= 1
    db.add(Order(item=item))
    db.commit()
