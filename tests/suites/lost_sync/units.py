"""Apps with a sync engine, whose units of work roll back at their end."""

from contextlib import contextmanager

import flask_app
import sync_app
from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from flask import Flask
from models import Order
from sqlalchemy import update

maker = sync_app.maker
shared = maker()
api = FastAPI()
flask = Flask(__name__)


class Unit:
    def __enter__(self):
        self.session = maker()
        return self

    def __exit__(self, *error):
        self.rollback()
        self.session.close()

    def rollback(self):
        self.session.rollback()


@contextmanager
def unit_with_finally():
    session = maker()
    try:
        yield session
    finally:
        session.rollback()
        session.close()


def get_db():
    with unit_with_finally() as session:
        yield session


def flushed(session):
    session.add(Order(item="vase"))
    session.flush()  # lost


def returned(session):
    """SQLAlchemy adds RETURNING to an INSERT of several rows."""
    session.add_all([Order(item="vase"), Order(item="bowl")])
    session.flush()  # lost


def added(session):
    session.add(Order(item="vase"))  # lost


def committed(session):
    flushed(session)
    session.commit()


def missed(session):
    no_row = update(Order).where(Order.item == "sofa").values(status="paid")
    session.execute(no_row)
    if session.get_bind().dialect.name != "mysql":
        session.execute(no_row.returning(Order.item))


def tried(session):
    """Write for a preview, and take it back."""
    flushed(session)
    session.rollback()


def caught(session):
    try:
        flushed(session)
        raise LookupError
    except LookupError:
        session.rollback()


@api.post("/unit/{name}/{status}")
def by_a_unit(name: str, status: int):
    with Unit() as unit:
        globals()[name](unit.session)
    return JSONResponse({}, status)


@api.post("/dropped/{name}/{status}")
def by_a_dropped_session(name: str, status: int):
    globals()[name](maker())
    return JSONResponse({}, status)


@api.post("/one_session/{name}/{status}")
def by_one_session(name: str, status: int):
    globals()[name](shared)
    return JSONResponse({}, status)


@api.post("/dependency/{name}/{status}")
def by_a_dependency(name: str, status: int, db=Depends(get_db)):
    globals()[name](db)
    return JSONResponse({}, status)


@api.post("/next/{name}/{status}")
def by_a_generator(name: str, status: int):
    generator = get_db()  # no code ends it
    globals()[name](next(generator))
    return JSONResponse({}, status)


@flask.post("/flask/<name>/<int:status>")
def of_flask(name, status):
    globals()[name](flask_app.Session)
    return "", status


@flask.teardown_appcontext
def end(error):
    flask_app.Session.rollback()
    flask_app.Session.remove()
