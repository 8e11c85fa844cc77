"""Flask-SQLAlchemy with a factory: each app has an engine."""

import os

from flask import Flask, jsonify
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Order(db.Model):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(String(50))


def items():
    return list(db.session.scalars(db.select(Order.item).order_by(Order.id)))


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    db.init_app(app)

    @app.get("/orders")
    def orders():
        return jsonify(items())

    @app.post("/orders/<item>")
    def order(item):
        db.session.add(Order(item=item))
        db.session.commit()
        return item, 201

    return app


create_app.__annotate__ = lambda form: {"return": unknown} if form < 3 else {}  # noqa: F821 - as on Python 3.14
