"""The routes: guests, the login, and entries."""

from flask import Blueprint, abort, jsonify, request, session
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from guestbook.models import Entry, Guest, db

blueprint = Blueprint("guestbook", __name__)


@blueprint.post("/guests")
def register() -> ResponseReturnValue:
    """Register a guest. A name can be taken once."""
    db.session.add(Guest(name=request.get_json()["name"]))
    try:
        db.session.commit()
    except IntegrityError:
        abort(409)
    return "", 201


@blueprint.post("/login")
def log_in() -> ResponseReturnValue:
    """Log a guest in, by a cookie."""
    name = request.get_json()["name"]
    guest = db.session.scalar(select(Guest).where(Guest.name == name))
    if guest is None:
        abort(401)
    session["guest"] = guest.id
    return "", 204


@blueprint.get("/entries")
def entries() -> ResponseReturnValue:
    """List all entries, the oldest first."""
    in_order = db.session.scalars(select(Entry).order_by(Entry.id))
    return jsonify([{"guest": entry.guest.name, "text": entry.text} for entry in in_order])


@blueprint.post("/entries")
def write() -> ResponseReturnValue:
    """Write an entry, as the guest that is logged in."""
    if "guest" not in session:
        abort(401)
    db.session.add(Entry(guest_id=session["guest"], text=request.get_json()["text"]))
    db.session.commit()
    return "", 201
