"""A test of a row that ignores a value of the row is named; one that uses it in any way is not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.example import fastapi_example
from tests.scenarios.proving import told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.proving import Told

PREAMBLE = """
import logging
from decimal import Decimal

import pytest
from app import Dancer, app, get_db
from fastapi import Depends
from sqlalchemy import select

PRICES = {"gold": "9.90", "pro": "19.90"}
ROWS = pytest.mark.parametrize("plan, price", [("gold", "9.90"), ("pro", "19.90")])
LOGGER = logging.getLogger(__name__)


@app.get("/plans/{plan}")
async def plan_(plan: str, db=Depends(get_db)):
    await db.scalars(select(Dancer))
    price = PRICES.get(plan, "0.00")
    cents = int(Decimal(price) * 100)
    return {"plan": plan, "price": price, "cents": cents}


@app.post("/quotes")
async def quote(body: dict, db=Depends(get_db)):
    db.add(Dancer(name="quote"))
    await db.commit()
    return body


@pytest.fixture(autouse=True)
def seeded(db_session):
    db_session.add(Dancer(name="someone"))


@pytest.fixture
def sold(db_session, plan, price):
    db_session.add(Dancer(name=f"{plan} {price}"))


def check(body, price):
    assert body["price"] == price

"""

LIARS = """
@ROWS
async def test_never(client, plan, price):
    answer = await client.get(f"/plans/{plan}")
    assert answer.json()["plan"] == plan

@ROWS
async def test_prints(client, plan, price):
    print(f"{plan} for {price}")
    LOGGER.info("price %s", price)
    body = (await client.get(f"/plans/{plan}")).json()
    assert body["plan"] == plan

@ROWS
async def test_asserts_itself(client, plan, price):
    body = (await client.get(f"/plans/{plan}")).json()
    assert price
    assert isinstance(price, str) and len(price) > 1
    assert body["plan"] == plan

@PROVES({"plan": "gold", "price": "9.90"})
@PROVES({"plan": "pro", "price": "19.90"})
async def test_loops(client):
    for plan, price in PRICES.items():
        body = (await client.get(f"/plans/{plan}")).json()
        assert body["plan"] == plan

@ROWS
@pytest.mark.parametrize("way", ["a", "b"])
async def test_two_tests(client, plan, price, way):
    body = (await client.get(f"/plans/{plan}")).json()
    assert body["plan"] == plan
"""

HONEST = """
@ROWS
async def test_asserts(client, plan, price):
    answer = await client.get(f"/plans/{plan}")
    assert answer.json()["price"] == price

@ROWS
async def test_sends(client, plan, price):
    assert (await client.get(f"/plans/{plan}")).status_code == 200
    answer = await client.post("/quotes", json={"price": price})
    assert answer.status_code == 200

@ROWS
async def test_converts(client, plan, price):
    cents = int(Decimal(price) * 100)
    body = (await client.get(f"/plans/{plan}")).json()
    assert body["cents"] == cents

@ROWS
async def test_expects(client, plan, price):
    expected = {"plan": plan, "price": price}
    body = (await client.get(f"/plans/{plan}")).json()
    body.pop("cents")
    assert body == expected

@ROWS
async def test_helper(client, plan, price):
    check((await client.get(f"/plans/{plan}")).json(), price)

@ROWS
async def test_seeds(client, db_session, plan, price):
    db_session.add(Dancer(name=price))
    assert (await client.get(f"/plans/{plan}")).status_code == 200

@ROWS
async def test_sets(client, db_session, plan, price):
    dancer = Dancer(name="x")
    db_session.add(dancer)
    dancer.name = price
    assert (await client.get(f"/plans/{plan}")).status_code == 200

@ROWS
async def test_fixture(client, sold, plan, price):
    assert (await client.get(f"/plans/{plan}")).status_code == 200

@ROWS
async def test_searches(client, plan, price):
    bodies = [(await client.get(f"/plans/{plan}")).json()]
    found = [body for body in bodies if body["price"] == price]
    assert found

@ROWS
async def test_decides(client, plan, price):
    body = (await client.get(f"/plans/{plan}")).json()
    if price.startswith("9"):
        assert body["cents"] < 1000
    else:
        assert body["cents"] > 1000

@ROWS
@pytest.mark.parametrize("way", ["a", "b"])
async def test_one_of_two(client, plan, price, way):
    body = (await client.get(f"/plans/{plan}")).json()
    if way == "a":
        assert body["plan"] == plan
    else:
        assert body["price"] == price

@PROVES({"plan": "gold", "price": "9.90"})
@PROVES({"plan": "pro", "price": "19.90"})
async def test_literals(client):
    body = (await client.get("/plans/gold")).json()
    assert body["price"] == "9.90"
    body = (await client.get("/plans/pro")).json()
    assert body["cents"] == 1990

@PROVES({"plan": "gold", "price": "9.90"})
@PROVES({"plan": "pro", "price": "19.90"})
async def test_loops_and_asserts(client):
    for plan, price in PRICES.items():
        body = (await client.get(f"/plans/{plan}")).json()
        assert body["price"] == price

@pytest.mark.parametrize("row", [dict(plan=plan, price=PRICES[plan]) for plan in PRICES])
async def test_whole_rows(client, row):
    body = (await client.get(f"/plans/{row['plan']}")).json()
    assert body["price"] == row["price"]

@PROVES({"plan": "gold", "price": "9.90"})
@PROVES({"plan": "pro", "price": "19.90"})
async def test_reads_all(client):
    for plan in PRICES:
        price = (await client.get(f"/plans/{plan}")).json()["price"]
        assert price > "1"
    prices = {"9.90", "19.90"}
    for price in prices & {price}:
        assert price == "19.90"

@PROVES({"plan": "gold", "price": "9.90"})
@PROVES({"plan": "pro", "price": "19.90"})
async def test_counts(client, db_session):
    db_session.add(Dancer(name=str(dict(price=1))))
    assert (await client.get("/plans/gold")).json()["cents"] == 990
    assert (await client.get("/plans/pro")).json()["cents"] == 1990

@pytest.mark.parametrize("plan, price", PRICES.items(), indirect=["price"])
class TestIndirect:
    @pytest.fixture
    def price(self, request, db_session):
        db_session.add(Dancer(name=request.param))

    @pytest.mark.usefixtures("price")
    async def test_indirect(self, client, plan):
        assert (await client.get(f"/plans/{plan}")).status_code == 200
"""

OUTLINE = """
  Scenario Outline: {}
    Given a plan <plan> for <price>
    When I GET /plans/<plan>
    Then I see it

    Examples: <note>
      | plan | price | note   |
      | gold | 9.90  | lovely |
      | pro  | 19.90 | costly |
"""
# A name of a test is that of its Outline, or that of the module's only one with another path.
PATHS = """
  Scenario Outline: paths
    When I GET /plans/<plan>
    Then I see <plan>

    Examples:
      | plan      |
      | gold      |
      | pro & co |

  Scenario Outline: own_paths
    When I GET /plans/<plan>
    Then I see <plan>

    Examples:
      | plan      |
      | gold      |
      | pro & co |
"""
PATH_TESTS = """
PLANS = pytest.mark.parametrize("plan", ["gold", "pro & co"])

@PLANS
@pytest.mark.scenario("paths")
async def test_paths(client, plan):
    answer = await client.get("/plans/free")
    assert plan not in answer.text

@PLANS
@pytest.mark.scenario("own_paths")
async def test_own_paths(client, plan):
    answer = await client.get(f"/plans/{plan}")
    assert answer.json()["plan"] == plan
"""
_TEST = re.compile(r"((?:^ *@(?!pytest.fixture).*\n)+) *async def test_(\w+)", re.MULTILINE)


def names(tests: str) -> list[str]:
    """The Outlines of these tests."""
    return [name for _, name in _TEST.findall(tests)]


def marked(match: re.Match[str]) -> str:
    """A test with a marker for its Outline, or for each row that it names."""
    decorators, name = match.groups()
    rows = re.sub(r"PROVES\((.*)\)", rf'pytest.mark.scenario("{name}", row=\1)', decorators)
    indent = decorators.partition("@")[0]
    if rows == decorators:
        rows = f'{indent}@pytest.mark.scenario("{name}")\n{decorators}'
    return f"{rows}{indent}async def test_{name}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """All of them in one run, of which pages are written."""
    folder: Path = tmp_path_factory.mktemp("rows")
    tests = PREAMBLE + _TEST.sub(marked, LIARS + HONEST) + PATH_TESTS
    outlines = "".join(map(OUTLINE.format, names(LIARS + HONEST)))
    example = fastapi_example(folder).with_files(test_it=tests)
    example = example.with_paths({"plans.feature": f"Feature: Plans\n{outlines}{PATHS}"})
    example = example.change("pytest.ini", "[pytest]\n", "[pytest]\narena_specs = plans.feature\n")
    return told(example, "-v", "--scenarios-out=html:out.html")


def remarks(run: Told, name: str, word: str = "never uses") -> list[Any]:
    """The warnings of a proven Outline that have a word."""
    scenario = run.scenarios[name]
    assert scenario["status"] == "PROVEN", scenario["reason"]
    return [text for text in scenario.get("warnings", ()) if word in text]


@pytest.mark.slow
@pytest.mark.parametrize("name", names(LIARS))
def test_a_value_of_a_row_that_no_test_uses_is_named(run: Told, name: str) -> None:
    """For each row, in the terminal, the page and the JSON. The Outline stays proven."""
    texts = remarks(run, name)
    assert sorted(texts) == [
        "the test never uses <price> of the row note=costly, plan=pro, price=19.90",
        "the test never uses <price> of the row note=lovely, plan=gold, price=9.90",
    ]
    page = (run.run.folder / "out.html").read_text(encoding="utf-8")
    for text in texts:
        assert text in run.run.output
        assert text.replace("<", "&lt;").replace(">", "&gt;") in page


@pytest.mark.parametrize("name", names(HONEST))
def test_a_value_that_is_used_in_any_way_is_not_named(run: Told, name: str) -> None:
    """Sent, written, asserted, converted, by a fixture or a helper, or another test of the row."""
    assert remarks(run, name) == []


def test_a_path_in_a_step_has_the_values_of_the_row(run: Told) -> None:
    """Also one with blanks. A request of another path does not count."""
    assert remarks(run, "paths", "requested") == [
        "never requested: GET /plans/gold",
        "never requested: GET /plans/pro%20%26%20co",
    ]
    assert remarks(run, "own_paths", "requested") == []
