"""What is different from one database product to the next, for the stories: one class each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.product_mysql import MySQL
from tests.conformance.product_postgresql import PostgreSQL
from tests.conformance.product_seam import Product
from tests.conformance.product_sqlite import SQLite

if TYPE_CHECKING:
    from tests.conformance.setting import Setting

__all__ = ["Product", "lacks_of", "product_of"]

_PRODUCTS: dict[str, Product] = {
    "sqlite": SQLite(),
    "postgresql": PostgreSQL(),
    "mysql": MySQL(),
}


def product_of(setting: Setting) -> Product:
    """Return the product of a setting.

    Raises:
        ValueError: no stories run on it yet.
    """
    if setting.database not in _PRODUCTS:
        known = ", ".join(_PRODUCTS)
        raise ValueError(f"no stories run on {setting.database!r}; they do on: {known}")
    return _PRODUCTS[setting.database]


def lacks_of(setting: Setting) -> dict[str, str]:
    """Return what is not promised: by the product, and by the setting, whose reasons win."""
    # An asyncio queue serves one loop at a time, also in SQLAlchemy without pytest-arena.
    of_pool = (
        {"waiting in loops": "the loops share one connection"} if setting.pool == "one" else {}
    )
    return {**product_of(setting).lacks(setting), **of_pool, **setting.lacks}
