"""The supported database products: what is known of each before its package is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_arena._values import ProductFacts


def package_of(product: str) -> str:
    """Return the name of a product's package."""
    return f"pytest_arena._{product}"


# By the names of SQLAlchemy's dialects.
SUPPORTED: dict[str, ProductFacts] = {}
for _name in ("sqlite", "postgresql"):
    SUPPORTED[_name] = importlib.import_module(package_of(_name)).FACTS

DRIVERS: dict[str, str] = {}  # the product of each driver's package
CLIENTS: dict[str, str] = {}  # the product of each program that connects to a database
for _facts in SUPPORTED.values():
    DRIVERS.update(dict.fromkeys(_facts.drivers, _facts.name))
    CLIENTS.update(dict.fromkeys(_facts.clients, _facts.name))

# The product whose databases are files, and the product of `arena_database = own`.
[FILES] = [facts for facts in SUPPORTED.values() if facts.is_file]
[OWN] = [facts for facts in SUPPORTED.values() if facts.has_private_servers]
FILE_PRODUCTS = {FILES.name}
SHOWN = [facts.shown for facts in SUPPORTED.values()]


def with_dialect(url: str) -> str:
    """Return a URL with the name of SQLAlchemy's dialect."""
    for facts in SUPPORTED.values():
        if facts.other_url and url.startswith(facts.other_url):
            return f"{facts.name}://{url.removeprefix(facts.other_url)}"
    return url


def product_of(value: str) -> str:
    """Return the product that a value of ``arena_database`` names, "" if it names none."""
    if value == "own":
        return OWN.name
    dialect, _, _ = with_dialect(value).partition("://")
    product, _, _ = dialect.partition("+")
    return product if product in SUPPORTED else ""
