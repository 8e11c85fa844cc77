"""The moments of a run at which the project's conftest attacks, and the ways."""

DURING = ("conftest", "configure", "sessionstart", "collection", "module", "fixture", "test")
AFTER = ("unconfigure", "thread", "exit", "del")
WAYS = ("by_engine", "by_driver", "by_attach")
FILES = [f"{moment}_{way}.db" for moment in (*DURING, *AFTER) for way in WAYS]
