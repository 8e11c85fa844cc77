"""An assertion that other answers pass too is found; one that an answer can fail is not accused."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._app._client import http_library
from pytest_arena.scenarios.assertions._other_answers import passes_with_any_answer

if TYPE_CHECKING:
    from types import FrameType


@cache
def client_of_all() -> Any:
    """One client: making it reads all certificates."""
    httpx = http_library()
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=["Storm"]))
    return httpx.Client(transport=transport, base_url="http://test")


def frame_of_a_test() -> FrameType:
    """The frame of a function with an answer, and with other variables."""
    client = client_of_all()
    r = client.get("/dancers")
    one = client.get("/dancers")
    maybe = next(iter([r]), None)
    answers = [client.get(path) for path in ("/dancers", "/none")]
    first = [client.get("/dancers"), client.get("/none")]
    good = [answer for answer in answers if answer.json()]
    pair = (r, 1)
    kinds = (dict, list)
    limit = 1000
    forbidden = [{"word": "secret"}, "hidden"]
    rows: dict[str, object] = {}
    name = str(rows) or "Storm"
    assert [answers, one, maybe, first, good, pair, kinds, limit, forbidden, name]
    return sys._getframe()


def is_idle(text: str) -> bool:
    """Whether it passes with any answer."""
    frame = frame_of_a_test()
    return passes_with_any_answer(frame, text, frame.f_locals, {})


@pytest.mark.parametrize(
    "text",
    [
        *("r", "r.request.method == 'GET'", "r.request.headers['accept']", "r.request", "r.url"),
        *("r.elapsed", "r.elapsed.total_seconds() >= 0", "r.http_version", "r.is_closed"),
        *("r.json() == r.json()", "r.json() is not None", "isinstance(r.json(), (dict, list))"),
        *("str(r)", "r.headers", "type(r)", "hasattr(r, 'json')", "callable(r.json)", "r.json"),
        *("r.status_code != 999", "r.status_code // 100 in (1, 2, 3, 4, 5)", "{'a': r.text}"),
        *("r.is_error or not r.is_error", "lambda: r.json() == []", "f'{r.status_code}'"),
        *("sorted(r.json()) == sorted(r.json())", "len(r.text) >= 0", "(x for x in r.json())"),
        *("r.status_code in range(100, 600)", "self.assertIn(r.status_code, range(1000))"),
        *("self.assertIsNotNone(r.text)", "self.assertIsInstance(r.text, str)"),
        *("(await client.get(f'/{name}')).json() is not None", "client.post('/').text is not None"),
        "isinstance((await client.request('GET', '/')).json(), (dict, list))",
        *("len([r]) == 1", "pair[1] == 1", "pair", "r in [r]", "r is not None", "r and one"),
        *("r is not one", "isinstance(r.json(), kinds)"),
        *("len(first) == 2", "first[0]", "len(await asyncio.gather(client.get('/a'))) == 1"),
    ],
)
def test_it_passes_with_any_answer(text: str) -> None:
    """With errors as well."""
    assert is_idle(text)


@pytest.mark.parametrize(
    "text",
    [
        *("r.status_code == 200", "r.status_code != 403", "r.is_success", "not r.is_error"),
        *("r.status_code not in (401, 403)", "str(r.status_code)[0] != '5'", "r.text", "r.json()"),
        *("'Storm' not in r.text", "'storm' not in r.text.lower()", "b'secret' not in r.content"),
        *("'Storm' not in r.json()", "r.json().count('Storm') == 0", "1 not in r.json()"),
        *("not any(n == 'Storm' for n in r.json())", "all(n != 'Storm' for n in r.json())"),
        *("[n for n in r.json() if n == 'Storm'] == []", "all(r.json())", "r.json() != []"),
        *("r.json() != {'a': {'b': [1, 2]}}", "['Storm'] not in r.json()", "r.json() != 'x'"),
        *("r.json()['a'] != 'b'", "len(r.json()) < 1000", "len(r.json()) != 3", "r.json() != 5"),
        *("len(r.text) < 5000", "len(r.text) != 300", "r.text.count('<li>') < 5"),
        *("len(r.json()) == len(set(r.json()))", "list(r.json()) == sorted(r.json())"),
        *("'set-cookie' not in r.headers", "r.headers.get('x-debug') is None", "not r.cookies"),
        *("r.headers.get('location') != '/login'", "r.cookies.get('a') != 'b'", "not r.history"),
        *(
            "r.headers.get('x-a') == r.headers.get('x-b')",
            "'html' not in r.headers['content-type']",
        ),
        *("int(r.headers['x-count']) < 5", "len(r.headers.get_list('x')) < 2", "not r.links"),
        *("r.next_request is None", "not r.has_redirect_location", "r.url.path == '/dancers'"),
        *("not str(r.url).endswith('/login')", "r.elapsed.total_seconds() < 2", "r.text.isascii()"),
        *("r.text == r.text.strip()", "r.encoding == 'utf-8'", "len(r.text.splitlines()) < 100"),
        *(
            "not (r.status_code == 200 and 'secret' in r.text)",
            "'a' not in r.text or 'b' in r.text",
        ),
        *(
            "isinstance(r.json(), list)",
            "not r.text.startswith('Error')",
            "r.reason_phrase == 'OK'",
        ),
        *("self.assertFalse(r.text)", "self.assertNotIn('a', r.text)", "name in r.text"),
        *("r.status_code in range(599)", "r.status_code in range(201, 600)"),
        *(
            "client.get('/') == r",
            "name",
            "(await client.get('/')).json() == []",
            "print(r)",
            "(await r.aread())",
            "r.json().pop('x')",
        ),
        *("client.get('/').is_success", "rows.get('a') is not None", "client.get is not None"),
        "(await client.get('/')).json() == (await client.get('/')).json()",
        *(
            "client",
            "client is not None",
            "maybe",
            "maybe is not None",
            "isinstance(maybe, object) and maybe",
            "len(good) == 1",
        ),
        *("r.json() == one.json()", "r.text != one.text", "pair[0].is_success", "client.cookies"),
        *("first[0].json() == first[1].json()", "[a.status_code for a in first] == [200, 200]"),
        *("len(r.json()) < limit", "forbidden[1] not in r.text", "len(r.text) < 50_000"),
        *("forbidden[0] not in r.json()", "r.text != forbidden[0]['word']", "r.json() != limit"),
        "all(word not in r.json() for word in forbidden)",
        "r.text != one.text or r.status_code == one.status_code",
        "r.text == one.text or r.status_code != one.status_code",
        "len({a.text for a in [client.get(path) for path in ('/a', '/b')]}) == 1",
    ],
)
def test_an_answer_could_fail_it(text: str) -> None:
    """Most deny something. Some call code that is not run a second time."""
    assert not is_idle(text)
