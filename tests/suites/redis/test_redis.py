"""Each test has the Redis of its level, in each loop, and none reaches the developer's."""

import asyncio
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor

import pytest
import redis
import redis.asyncio
from carts_app import cache, sync_cache
from conftest import CALLS


FORKS = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))


needs_client = pytest.mark.skipif(not shutil.which("redis-cli"), reason="redis-cli is missing")


@pytest.fixture(scope="module")
def shared():
    sync_cache.set("shared", "yes", ex=600)
    sync_cache.set("deleted", "no")


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_no_test_sees_the_keys_of_another(client, turn):
    assert (await client.get("/carts")).json() == []
    assert (await client.post("/carts/dune")).json() == 1
    assert (await client.post("/visits")).json() == 1
    assert (await client.get("/carts")).json() == ["cart:dune", "visits"]


@pytest.mark.parametrize("turn", ["first", "second"])
def test_a_sync_client_has_a_loop_for_each_request(test_client, turn):
    assert test_client.post("/carts/dune").json() == 1
    assert test_client.post("/carts/dune").json() == 2
    assert test_client.post("/visits").json() == 1


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_a_wide_fixture_keeps_its_keys(shared, client, turn):
    assert (await client.get("/carts")).json() == ["deleted", "shared"]
    assert 0 < await cache.ttl("shared") <= 600
    await cache.delete("deleted")
    await cache.set("shared", turn)


async def test_a_block_with_rows_of_its_own(shared, arena, client):
    async with arena.fresh():
        await client.post("/carts/dune")
    assert (await client.get("/carts")).json() == ["deleted", "shared"]


def listen(found):
    subscriber = redis.Redis().pubsub()
    subscriber.subscribe("news")
    try:
        for message in subscriber.listen():
            found.append(message)
    except Exception:
        found.append("ended")


def start_to_listen():
    found = []
    LISTENING.append((threading.Thread(target=listen, args=[found], daemon=True), found))
    LISTENING[-1][0].start()
    while not found:
        pass


LISTENING = []


@pytest.fixture(scope="class")
def of_class():
    sync_cache.set("class", "yes")
    start_to_listen()


class TestOfAClass:
    def test_it_has_the_keys_of_its_class_and_its_module(self, shared, request, turn):
        request.getfixturevalue("of_class")
        assert sorted(sync_cache.keys()) == ["class", "deleted", "shared"]
        sync_cache.set("mine", "yes")
        assert LISTENING[-1][0].is_alive()


def test_the_keys_and_the_subscription_of_the_class_are_gone(shared):
    assert sorted(sync_cache.keys()) == ["deleted", "shared"]
    LISTENING[-1][0].join(10)
    assert LISTENING[-1][1][-1] == "ended"


def test_a_login_of_the_app():
    login = redis.UsernamePasswordCredentialProvider("app", "s3cret")
    assert redis.Redis(credential_provider=login).ping()


async def test_several_numbers(client):
    other = redis.asyncio.Redis(db=7)
    await other.set("seven", "7")
    await cache.set("three", "3")
    assert sync_cache.connection_pool.connection_kwargs["db"] == 3
    await other.aclose()


async def test_they_are_empty_again(shared):
    other = redis.Redis(db=7)
    assert other.keys() == []
    assert sorted(sync_cache.keys()) == ["deleted", "shared"]
    other.close()


async def test_requests_at_once(client):
    answers = await asyncio.gather(*(client.post("/carts/dune") for _ in range(8)))
    assert sorted(answer.json() for answer in answers) == list(range(1, 9))


@pytest.fixture(scope="class")
def key_of_class():
    sync_cache.set("class", 1)


@pytest.fixture(scope="module")
def key_of_module():
    sync_cache.set("module", 1)


class TestWide:
    def test_a_fixture_of_the_class_is_first(self, key_of_class):
        pass

    def test_one_of_the_module_outlives_it(self, key_of_class, key_of_module):
        assert sync_cache.exists("class", "module") == 2


def test_a_subscription_that_a_test_leaves():
    start_to_listen()
    redis.Redis().publish("news", "first")


def test_it_has_ended():
    thread, found = LISTENING[-1]
    thread.join(10)
    assert found[-1] == "ended"


def test_another_program_uses_the_same_server(arena):
    client = "redis.from_url(os.environ['REDIS_URL'])"
    code = f"import os, redis; {client}.set('by', 'program'); print('done')"
    with arena.process([sys.executable, "-c", code], ready="done"):
        assert sync_cache.get("by") == "program"


def test_a_program_that_has_the_url_in_its_code(arena):
    code = "import redis; redis.Redis().set('by', 'program')"
    assert arena.process([sys.executable, "-c", code]).wait() == 0
    assert redis.Redis().get("by") == b"program"


@needs_client
def test_its_client_uses_the_same_server():
    subprocess.run("redis-cli -n 3 set by client && redis-cli get by", shell=True, check=True)
    assert sync_cache.get("by") == "client"


@needs_client
@pytest.mark.parametrize("place", ["-p6379", "-h 127.0.0.1", "-u $REDIS_URL", "-s redis.sock"])
def test_its_client_with_another_server(arena, place):
    with arena.expect_refusal() as refused:
        subprocess.run(f"redis-cli {place} set by client", shell=True, check=True)
    assert "redis-cli" in refused.error.what


@pytest.mark.expect("AssertionError")
async def test_the_story_names_the_keys(shared, client):
    await client.post("/carts/dune")
    await cache.delete("deleted")
    await cache.set("shared", "changed")
    assert False


@pytest.mark.expect("AssertionError")
async def test_the_story_names_ten_keys(client):
    for number in range(13):
        await cache.set(f"key:{number:02}", "value")
    assert False


@pytest.mark.parametrize("options", [{"ssl": True}, {"unix_socket_path": "/run/redis.sock"}])
@pytest.mark.expect("A202", at="redis.Redis(**options).ping()")
def test_a_connection_by_tls_or_by_a_unix_socket(options):
    redis.Redis(**options).ping()


def test_no_cluster_is_reached():
    with pytest.raises(redis.exceptions.RedisClusterException):
        redis.RedisCluster(host="localhost")
    with pytest.raises(redis.exceptions.RedisError):
        redis.Sentinel([("localhost", 26379)]).master_for("shop").ping()


def test_a_fork_that_outlives_the_run_does_not_keep_it():
    assert FORKS.submit(abs, -1).result() == 1


def test_nobody_has_reached_the_developers_server():
    assert CALLS == []
    assert "arena.invalid" in os.environ["REDIS_URL"]
