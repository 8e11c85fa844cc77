"""Which apps are the same in all but identity?"""

from __future__ import annotations

import functools
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from litestar import Controller, Litestar, get
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Mount, Route

from pytest_arena._app import Made, handlers, kinship
from pytest_arena._app._made_of import made_of

router = APIRouter()
ROUTERS = [router]


@router.get("/shared")
def shared() -> str:
    """Of a router."""
    return ""


def logged(function: Any) -> Any:
    """A decorator that says what it wraps."""

    @functools.wraps(function)
    def logging(*args: Any) -> Any:
        return function(*args)

    return logging


class Page(HTTPEndpoint):
    """Starlette's way."""


def create(*, debug: bool = False) -> FastAPI:
    """A factory with closures, routers and a mounted app."""
    app, below = FastAPI(), FastAPI()

    @app.get("/own")
    @logged
    def own() -> str:
        return ""

    @below.get("/below")
    def inside() -> str:
        return ""

    def probe() -> str:
        return ""

    for one in ROUTERS:
        app.include_router(one)
    app.mount("/under", below)
    if debug:
        app.get("/probe")(probe)
    return app


def names(app: object) -> set[str]:
    """What answers its requests."""
    return {one[-1] if isinstance(one, tuple) else one.__name__ for one in handlers(app)}  # type: ignore[attr-defined]  # a class


def test_handlers_are_the_users_code_and_none_of_a_librarys() -> None:
    """FastAPI's own routes, of its documentation, are in all of its apps."""
    assert names(create()) == {"own", "inside", "shared"}
    assert handlers(create()) == handlers(create())
    assert handlers(FastAPI()) == frozenset()


def test_handlers_of_starlette_and_litestar() -> None:
    """Classes count as themselves, methods of a controller by their code."""

    class Rooms(Controller):
        path = "/rooms"

        @get("/all", sync_to_thread=False)
        def rooms(self) -> str:
            return ""

    assert names(Starlette(routes=[Mount("/a", routes=[Route("/b", Page)])])) == {"Page"}
    assert names(Litestar([Rooms], logging_config=None)) == {"rooms"}


@pytest.mark.parametrize(
    "app, known, expected",
    [
        ("ab", ["ab"], "same"),
        ("a", ["ab"], "same"),
        ("abc", ["ab"], "same"),
        ("bc", ["ab"], "part"),
        ("bc", ["ab", "bcd"], "same"),
        ("c", ["ab"], "other"),
        ("", ["ab"], "other"),
        ("a", [""], "other"),
    ],
)
def test_an_app_is_the_same_with_no_others_beside_or_with_all(
    app: str, known: list[str], expected: str
) -> None:
    """With a part and others nobody can tell; what has no handlers is like nothing."""
    assert kinship(frozenset(app), [frozenset(one) for one in known]) == expected


def test_what_a_factory_makes_is_known_whoever_calls_it() -> None:
    """And what others make is not; afterwards the class is as it was."""
    before = FastAPI.__init__
    made = Made(create)
    made.watch()
    mine, other = create(), FastAPI()
    made.close()
    assert mine in made.apps
    assert other not in made.apps
    assert FastAPI.__init__ is before


def test_what_a_factory_may_make_is_read_from_its_code() -> None:
    """Closures, and routers by their names, also in lists and in functions that it calls."""
    places = made_of(functools.partial(create, debug=True))
    assert handlers(create(debug=True)) <= places
    assert handlers(create()) <= made_of(lambda: create())  # noqa: PLW0108 - a factory of its own
