"""An app without an engine, as FastAPI's and SQLModel's documentation test it."""

from fastapi import Depends, FastAPI
from models import Order
from sqlalchemy import select
from sqlalchemy.orm import Session


def get_session():
    raise NotImplementedError


app = FastAPI()


@app.get("/orders")
def orders(session: Session = Depends(get_session)):
    return list(session.scalars(select(Order.item)))
