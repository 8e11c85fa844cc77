"""A Flask app as its documentation writes it."""

WSGI_APP = """
from flask import Flask, abort, jsonify
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker

engine = create_engine("sqlite:///dev.db")
Session = scoped_session(sessionmaker(engine))


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


app = Flask(__name__)


@app.teardown_appcontext
def remove(error):
    Session.remove()


@app.get("/dancers")
def dancers():
    return jsonify([one.name for one in Session.scalars(select(Dancer).order_by(Dancer.id))])


@app.post("/dancers/<name>")
def add(name):
    Session.add(Dancer(name=name))
    Session.commit()
    return name, 201


@app.post("/left/<name>")
def leave(name):
    Session.add(Dancer(name=name))
    return name, 201


@app.post("/lost/<name>")
def lose(name):
    Session.add(Dancer(name=name))
    Session.flush()
    return name, 201


@app.post("/broken")
def broken():
    raise ValueError("no dancer")


@app.post("/kept")
def keep():
    app.kept = engine.connect()
    app.kept.execute(select(Dancer))
    return "kept"
"""
