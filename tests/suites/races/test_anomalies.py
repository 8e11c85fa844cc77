"""No right endpoint is red in any order, and each wrong one is found, always in the same pass."""

import pytest
from shop_app import PRODUCT

IS_FILE = PRODUCT == "sqlite"
ONE_EACH = [200, 409]
BOTH = [200, 200]
# The name of an endpoint, and the statuses of two requests one after the other.
WRONG = {
    "check_then_act": ONE_EACH,
    "lost_update": ONE_EACH,
    "get_or_create": BOTH,
    "write_skew": ONE_EACH,
    "queue": ONE_EACH,
    "idempotency_key": ONE_EACH,
}
RIGHT = {
    "check_then_act_locked": ONE_EACH,
    "lost_update_one_statement": ONE_EACH,
    "lost_update_versioned": ONE_EACH,
    "get_or_create_again": BOTH,
    "unique": ONE_EACH,
    "transfer_in_order": BOTH,
    "idempotency_key_first": ONE_EACH,
}
LOCKS = {"lost_update_for_update": ONE_EACH, "queue_skip_locked": ONE_EACH}
if IS_FILE:  # it has no row locks, and no deadlock without a transaction that reads first
    WRONG |= LOCKS
    RIGHT["transfer"] = BOTH
else:
    RIGHT |= LOCKS
    RIGHT["write_skew_serializable"] = ONE_EACH
    WRONG["transfer"] = BOTH
if PRODUCT == "postgresql":
    RIGHT["check_then_act_advisory"] = ONE_EACH


def paths(name):
    return [f"/{name}?number=1", f"/{name}?number=2"]


def statuses(answers):
    return sorted(answer.status_code for answer in answers)


@pytest.fixture
def first_wrong(arena, client):
    """Return the number of the first pass with other statuses, 0 without one."""

    async def first_wrong(name, expected):
        number = 0
        async for race in arena.races():
            number += 1
            if statuses(await race(*map(client.post, paths(name)))) != expected:
                return number
        return 0

    return first_wrong


@pytest.fixture
def first_wrong_in_threads(arena, test_client):
    def first_wrong(name, expected):
        first, second = paths(name)
        for number, race in enumerate(arena.races(), start=1):
            answers = race(lambda: test_client.post(first), lambda: test_client.post(second))
            if statuses(answers) != expected:
                return number
        return 0

    return first_wrong


@pytest.mark.parametrize("name, expected", RIGHT.items())
async def test_a_right_endpoint(name, expected, first_wrong):
    assert await first_wrong(name, expected) == 0


@pytest.mark.parametrize("name, expected", WRONG.items())
async def test_a_wrong_endpoint(name, expected, first_wrong):
    number = await first_wrong(name, expected)
    assert 1 < number <= 30
    assert await first_wrong(name, expected) == number


@pytest.mark.parametrize("name, expected", RIGHT.items())
def test_a_right_endpoint_in_threads(name, expected, first_wrong_in_threads):
    assert first_wrong_in_threads(name, expected) == 0


@pytest.mark.parametrize("name, expected", WRONG.items())
def test_a_wrong_endpoint_in_threads(name, expected, first_wrong_in_threads):
    number = first_wrong_in_threads(name, expected)
    assert 1 < number <= 30
    assert first_wrong_in_threads(name, expected) == number
