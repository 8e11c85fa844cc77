"""How a client logs in."""

from pytest_arena import TestClient


def log_in(client: TestClient, role: str) -> None:
    """Log in as the guest of this name."""
    client.post("/login", json={"name": role}).raise_for_status()
