"""A Flask app with a crew."""

from flask import Flask, jsonify
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


engine = create_engine("sqlite:///dev.db")
app = Flask(__name__)


@app.get("/dancers")
def dancers():
    with Session(engine) as session:
        return jsonify([dancer.name for dancer in session.scalars(select(Dancer))])


@app.post("/dancers/<name>")
def add(name):
    with Session(engine) as session:
        session.add(Dancer(name=name))
        session.commit()
    return "", 201
