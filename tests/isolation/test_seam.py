"""The interface between the core and the products."""

from __future__ import annotations

import importlib

import pytest

from pytest_arena._config._supported import SUPPORTED, package_of
from pytest_arena._product import Connections


@pytest.mark.parametrize("product", SUPPORTED)
def test_the_connections_of_a_product_have_each_method(product: str) -> None:
    """Mypy does not compare them, because the core imports a product's package by its name."""
    module = importlib.import_module(f"{package_of(product)}._connections")
    methods = [name for name in vars(Connections) if not name.startswith("_")]
    assert len(methods) > 4
    missing = [name for name in methods if not hasattr(module.connections, name)]
    assert missing == []
