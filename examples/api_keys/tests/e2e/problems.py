"""How these tests look at a refusal."""

from http import HTTPStatus
from typing import Any

from httpx2 import Response


def problem_of(response: Response, *, status: int) -> Any:
    """Check that a response is a problem of this status, and give what it says."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"https://httpstatuses.com/{status}"
    assert problem["title"] == HTTPStatus(status).phrase
    assert problem["status"] == status
    return problem["detail"]
