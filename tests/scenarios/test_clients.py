"""Requests of any client count, and get broken answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.projects import Results, project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A strict run of a Flask project."""
    folder: Path = tmp_path_factory.mktemp("crew")
    return Results.of(project("crew", folder), "--scenarios=strict")


@pytest.mark.parametrize(
    "name, kind",
    [
        ("A dancer joins", "wrong"),
        ("Flask's own client reads", "wrong"),
        ("A program reads over the network", "wrong"),
        ("The row is written", "500"),
    ],
)
def test_a_wsgi_app_is_broken_for_each_client(results: Results, name: str, kind: str) -> None:
    """P9. The framework's client, a server's client, and rows that the app did not write."""
    assert results.statuses[name] == "PROVEN", results.run.output
    assert results.attempt(name)["sabotage"]["kind"] == kind
    route = results.facts(name)["requests"][-1]["route"]
    assert route in {"/dancers", "/dancers/<name>", ""}
