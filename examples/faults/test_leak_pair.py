"""What the app has committed in one test is there in the next one: part 1 and part 2."""

from starlette.testclient import TestClient

LEAK_CHECK = "LEAK_CHECK_DANCER"


def test_dancer_does_not_leak_to_next_test_part1(test_client: TestClient) -> None:
    """Part 1 has the app commit a dancer."""
    assert test_client.post(f"/dancers/{LEAK_CHECK}").status_code == 201


def test_dancer_does_not_leak_to_next_test_part2(test_client: TestClient) -> None:
    """Part 2 does not see the dancer of part 1."""
    assert LEAK_CHECK not in test_client.get("/dancers").json()
