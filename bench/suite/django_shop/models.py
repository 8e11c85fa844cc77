"""The same tables as the other shop's."""

from __future__ import annotations

import os
from typing import Any

from django.db import models

TABLES = int(os.environ.get("BENCH_TABLES", "20"))


def _model(name: str, table: str) -> Any:
    meta = type("Meta", (), {"db_table": table, "indexes": [models.Index(fields=["name"])]})
    columns = {"name": models.CharField(max_length=200), "price": models.IntegerField()}
    return type(name, (models.Model,), {"__module__": __name__, "Meta": meta, **columns})


Item = _model("Item", "items")
others = [_model(f"Table{number}", f"table_{number}") for number in range(TABLES - 1)]
