"""Django without isolation: one database for all tests, in which the rows pile up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def _tables(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        call_command("migrate", run_syncdb=True, verbosity=0)
        yield
