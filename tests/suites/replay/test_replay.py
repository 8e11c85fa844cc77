"""Each wrong endpoint is found, by the right question, and no right one."""

import pytest
import replay_app
from shop_app import IS_SYNC, PRODUCT

IS_FILE = PRODUCT == "sqlite"
RIGHT = [
    "check_then_act_locked",
    "lost_update_one_statement",
    "lost_update_versioned",
    "try_again",
    "get_or_create_again",
    "unique",
    "transfer",
    "transfer_in_order",
    "idempotency_key_first",
    "time_of_the_app",
    "whole_seconds",
    "time_of_the_database",
    "random_token",
    "key_of_the_app",
    "savepoint_first",
    "soft_delete",
    "removal",
    "two_tables",
    "upsert",
    "locked_counter",
    "updated_at",
    "completed_when_sent_again",
]
WRONG = {
    "check_then_act": "Race",
    "add_if_none": "Race",
    "get_or_create": "Race",
    "write_skew": "Race",
    "idempotency_key": "Race TornWrite",
    "increment": "Race",
    "next_number": "Race",
    "toggle": "Race",
    "quota": "Race TornWrite",
    "unique_after_a_look": "Race",
    "unique_after_a_look_with_an_answer_of_500": "Race",
    "two_commits": "TornWrite",
    "commit_before_a_check": "TornWrite",
    "replaced_in_two_steps": "Race TornWrite",
    "torn_and_accepted": "TornWrite",
    "swallowed": "LostWrite",
    "swallowed_and_said_otherwise": "LostWrite",
    "lock_in_memory": "Leak",
}
if IS_FILE:
    if not IS_SYNC:
        WRONG["leaked_connection"] = "Leak"  # a server's pool drops a lost connection
else:
    RIGHT += ["lost_update_for_update", "queue_skip_locked", "write_skew_serializable"]
if PRODUCT == "postgresql":
    RIGHT.append("check_then_act_advisory")
LOGINS = {
    "with_login": "",
    "with_api_key": "",
    "without_login": "Access",
    "of_another_role": "Access",
    "ignores_the_api_key": "Access",
    "with_a_token_in_the_body": "",
    "with_a_password_in_a_form": "",
    "with_a_password_in_an_upload": "",
    "reset/key": "",
    "tokens/1": "Access",
    "writes_before_its_check": "Access",
    "names_who_is_refused": "",
}
BODIES = {
    "with_a_token_in_the_body": {"json": {"token": "key"}},
    "with_a_password_in_a_form": {"data": {"password": "key"}},
    "with_a_password_in_an_upload": {"files": {"password": (None, "key")}},
}
if not IS_SYNC:
    RIGHT.append("in_the_background")
    WRONG["shared_session"] = "Leak"


def finding(words):
    return pytest.mark.finds(*sorted(f"{word}Warning" for word in words.split()))


def each(wanted):
    return [pytest.param(name, id=name, marks=finding(words)) for name, words in wanted.items()]


if IS_SYNC:

    @pytest.fixture
    def send(test_client):
        return test_client.post

else:

    @pytest.fixture
    def send(client):
        return client.post


async def answer_of(answer):
    return answer if IS_SYNC else await answer


@pytest.mark.parametrize("name", each({**dict.fromkeys(RIGHT, ""), **WRONG}))
async def test_an_endpoint(send, name):
    assert (await answer_of(send(f"/{name}"))).status_code == 200


@pytest.mark.parametrize("name", each(LOGINS))
async def test_an_endpoint_that_gets_a_login(send, name):
    headers = {"Authorization": "Bearer admin", "X-API-Key": "key"}
    answer = send(f"/{name}", headers=headers, **BODIES.get(name, {}))
    assert (await answer_of(answer)).status_code == 200


@finding("TornWrite")
async def test_a_test_double_that_counts_its_calls_before_a_wrong_endpoint(send, monkeypatch):
    letters = []
    monkeypatch.setattr(replay_app, "post_letter", lambda: letters.append("Dune"))
    assert (await answer_of(send("/only_a_letter"))).status_code == 200
    assert letters == ["Dune"]
    assert (await answer_of(send("/after_a_letter"))).status_code == 200
