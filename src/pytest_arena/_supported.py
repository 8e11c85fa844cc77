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
FILE_PRODUCTS: set[str] = set()
for _name, _facts in SUPPORTED.items():
    DRIVERS.update(dict.fromkeys(_facts.drivers, _name))
    CLIENTS.update(dict.fromkeys(_facts.clients, _name))
    if _facts.is_file:
        FILE_PRODUCTS.add(_name)
