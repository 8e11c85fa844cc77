"""What does isolation add to a test on PostgreSQL, in whole suites, and what do other ways add?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bench.page import Table, milliseconds
from bench.place import scratch
from bench.samples import in_turns
from bench.server import databases, has_server, url_of
from bench.suites import LOOPS, REQUESTS, WARM, Suite, Variant, on_postgresql

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.effort import Effort
    from bench.samples import Samples
    from pytest_arena._postgresql.registry import ServerRegistry

__all__ = ["measure"]

DJANGO_REQUESTS = """
def test_{number}(client):
    made = client.post("/items?name=Sand+{number}").json()
    assert client.get("/items").json()[0] == made["name"]
    assert client.get(f"/items/{{made['id']}}").json() == made
"""
# What takes long is far from the noise: fewer tests tell as much of it.
_FEWER = 5


@dataclass(frozen=True, slots=True)
class Way:
    """A way to isolate tests."""

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    floor: str = "no isolation"
    """What it is compared with; a floor with itself."""
    needs: str = "fastapi"
    """A package without which it is left out."""
    is_slow: bool = False
    has_own: bool = False
    """Whether it finds its databases itself."""

    @property
    def is_django(self) -> bool:
        """Whether its app is the one in Django."""
        return self.needs == "pytest_django"


def _with(variant: str, *plugins: str) -> tuple[str, ...]:
    names = (*plugins, f"bench.suite.variant_{variant}")
    return tuple(part for name in names for part in ("-p", name))


def _arena(isolation: str, *, is_slow: bool = False) -> Way:
    variant = on_postgresql(isolation)
    return Way(variant.arguments, variant.environment, is_slow=is_slow, has_own=True)


FLOOR, OURS, TRUNCATE = "no isolation", "**arena, `undo`**", "TRUNCATE of all tables"
CLONE, KEPT = "arena, `clone`", "rollback, engine kept"
NEW, RECIPE = "rollback, an engine for each test", "create_all, drop_all, an engine for each test"
TEMPLATE = "pytest-postgresql's fixture, an engine for each test"
DJANGO_FLOOR, DJANGO = "Django, no isolation", "pytest-django's transactional fixture"
WAYS = {
    FLOOR: Way(_with("floor")),
    OURS: _arena("undo"),
    CLONE: _arena("clone", is_slow=True),
    KEPT: Way(_with("pg_rollback")),
    NEW: Way(_with("pg_rollback"), (("BENCH_ENGINE", "new"),), is_slow=True),
    TRUNCATE: Way(_with("pg_truncate"), is_slow=True),
    TEMPLATE: Way(
        _with("pg_template", "pytest_postgresql.plugin"), needs="pytest_postgresql", is_slow=True
    ),
    RECIPE: Way(_with("recipe"), is_slow=True),
    DJANGO_FLOOR: Way(
        _with("django_floor", "pytest_django.plugin"), floor=DJANGO_FLOOR, needs="pytest_django"
    ),
    DJANGO: Way(
        _with("django_transactional", "pytest_django.plugin"),
        floor=DJANGO_FLOOR,
        needs="pytest_django",
        is_slow=True,
    ),
}
_QUICK = {FLOOR, OURS, TRUNCATE}
_SETTINGS = (("DJANGO_SETTINGS_MODULE", "bench.suite.django_shop.settings"),)


@dataclass(frozen=True, slots=True)
class Scene:
    """How the suites run: loops and workers."""

    title: str
    arguments: tuple[str, ...]
    names: tuple[str, ...]
    workers: int = 1
    others: tuple[tuple[str, str], ...] = ()
    """What the app needs to run there at all, without arena."""


ONE_LOOP = Scene("one loop for all", LOOPS["one loop for all"], tuple(WAYS))
SCENES = (
    ONE_LOOP,
    Scene(
        "a loop for each test",
        LOOPS["a loop for each test"],
        (FLOOR, OURS, KEPT, TRUNCATE, TEMPLATE, RECIPE),
        others=(("BENCH_POOL", "none"),),
    ),
    Scene(
        "one loop, two workers",
        (*LOOPS["one loop for all"], "-p", "xdist.plugin", "-n", "2"),
        (FLOOR, OURS, TRUNCATE, TEMPLATE),
        workers=2,
    ),
)


def measure(effort: Effort) -> list[Table]:
    """Run all ways by turns in all scenes; nothing where there is no PostgreSQL."""
    if not has_server():
        return []
    with scratch() as folder, databases() as own:
        takers: dict[str, Callable[[], list[float]]] = {
            _key(scene, name): partial(_run, own, _suite(folder / str(at), *one, effort), *one)
            for at, (scene, name) in enumerate(_all(effort))
            for one in [(scene, WAYS[name])]
        }
        takers[_key(ONE_LOOP, OURS)]()  # builds the template
        samples = in_turns(takers, rounds=effort.server_rounds)
    return [_table(samples)]


def _all(effort: Effort) -> list[tuple[Scene, str]]:
    return [
        (scene, name)
        for scene in SCENES
        for name in scene.names
        if (effort.wide or name in _QUICK) and find_spec(WAYS[name].needs)
    ]


def _key(scene: Scene, name: str) -> str:
    return f"{scene.title}: {name}"


def _suite(folder: Path, scene: Scene, way: Way, effort: Effort) -> Suite:
    tests = effort.server_tests // _FEWER + 1 if way.is_slow else effort.server_tests
    text = DJANGO_REQUESTS if way.is_django else REQUESTS
    return Suite(folder, text, tests + WARM * (scene.workers - 1)).write()


def _run(own: ServerRegistry, suite: Suite, scene: Scene, way: Way) -> list[float]:
    arguments = (*way.arguments, *scene.arguments)
    if way.has_own:
        return suite.run(Variant(arguments, way.environment)).tests
    names = [own.create("live") for _ in range(scene.workers)]
    urls = " ".join(url_of(own.address_of(name), "asyncpg") for name in names)
    more = (*way.environment, *scene.others, *_SETTINGS, ("BENCH_URLS", urls))
    try:
        return suite.run(Variant(arguments, more)).tests
    finally:
        own.drop(*names)


def _table(samples: dict[str, Samples]) -> Table:
    columns = [name for scene in SCENES for name in (scene.title, "added")]
    names = [name for name in WAYS if _key(ONE_LOOP, name) in samples]
    return Table(
        title="A test with three requests on PostgreSQL",
        about="Times in milliseconds of a test with FastAPI, asyncpg and 20 tables. `added` "
        "is the difference from the suite without isolation that has one loop and the same "
        "number of workers. With a loop for each test, the suites without arena use "
        "`NullPool`.",
        header=("", *columns),
        rows=tuple(_row(name, samples) for name in names),
    )


def _row(name: str, samples: dict[str, Samples]) -> tuple[str, ...]:
    cells = [name]
    for scene in SCENES:
        one = samples.get(_key(scene, name))
        if one is None:
            cells += ["", ""]
            continue
        is_floor = one is _floor(scene, name, samples)
        added = "" if is_floor else milliseconds(_added(scene, name, samples))
        cells += [milliseconds(one.median), added]
    return tuple(cells)


def _added(scene: Scene, name: str, samples: dict[str, Samples]) -> float:
    return samples[_key(scene, name)].above(_floor(scene, name, samples))


def _floor(scene: Scene, name: str, samples: dict[str, Samples]) -> Samples:
    """A loop for each test costs something by itself, more where connections do not follow it."""
    floors = ONE_LOOP if scene.workers == 1 else scene
    return samples[_key(floors, WAYS[name].floor)]
