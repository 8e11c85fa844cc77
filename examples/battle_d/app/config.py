"""Where does the app find its database, and with which key does it sign?"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

PROJECT = Path(__file__).resolve().parent.parent
DEVELOPERS_DATABASE = PROJECT / "data" / "battle_d.db"

MINUTE = 60
HOUR = 60 * MINUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process, read once from its environment."""

    database_url: str = f"sqlite+aiosqlite:///{DEVELOPERS_DATABASE}"
    secret_key: str = field(default="only-for-development", repr=False)
    """Signs login links and session cookies. A deployment sets its own."""
    login_link_lives: int = 15 * MINUTE
    session_lives: int = 12 * HOUR
    """A tournament lasts a day; nobody should have to log in twice in it."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Take what the environment sets, and the defaults for the rest."""
        names = {"database_url": "DATABASE_URL", "secret_key": "SECRET_KEY"}
        given = {key: environment[name] for key, name in names.items() if environment.get(name)}
        return cls(**given)  # type: ignore[arg-type]  # both are strings; the two numbers are not read


settings = Settings.from_environment()
