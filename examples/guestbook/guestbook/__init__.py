"""A guestbook: guests log in by name, and leave a line."""

import os

from flask import Flask

from guestbook.models import db
from guestbook.routes import blueprint


def create_app() -> Flask:
    """Make an app with a new engine."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY", "for development")
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///guests.db")
    db.init_app(app)
    app.register_blueprint(blueprint)
    app.cli.command("create-tables")(db.create_all)
    return app
