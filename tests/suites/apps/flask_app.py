"""A Flask app as its documentation writes it: a global engine, a session for each thread."""

import os

from flask import Flask, Response, abort, jsonify, stream_with_context
from models import Order, Stock
from sqlalchemy import create_engine, select
from sqlalchemy.orm import scoped_session, sessionmaker

engine = create_engine(os.environ["DATABASE_URL"])
Session = scoped_session(sessionmaker(engine))
app = Flask(__name__)


@app.teardown_appcontext
def remove(error):
    Session.remove()


@app.get("/orders")
def orders():
    return jsonify(list(Session.scalars(select(Order.item).order_by(Order.id))))


@app.post("/orders/<item>")
def order(item):
    stock = Session.get(Stock, item) or abort(404)
    stock.amount -= 1
    Session.add(Order(item=item))
    Session.commit()
    return item, 201


@app.post("/leaves/<item>")
def leaves(item):
    Session.add(Order(item=item))
    return item


@app.post("/breaks")
def breaks():
    raise LookupError("no such thing")


@app.get("/closes")
def closes():
    response = jsonify()
    response.call_on_close(lambda: setattr(app, "closed", True))
    return response


@app.get("/events")
def events():
    def read():
        for _ in range(9):
            items = Session.scalars(select(Order.item)).all()
            Session.commit()
            yield ",".join(items)

    return Response(stream_with_context(read()), mimetype="text/event-stream")


@app.post("/keeps")
def keeps():
    app.kept = engine.connect()
    return "kept"
