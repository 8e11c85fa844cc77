"""Does `arena doctor` find what is wrong in a suite, and nothing else?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._cli.doctor._doctor import apply_edits
from pytest_arena._cli.doctor._examine import examine, suite_files
from pytest_arena._cli.doctor._rule import RULES, Replacement
from tests.command import arena
from tests.doctor.page import PAGE, twin, written

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.command import Called

    Doctor = Callable[..., Called]

OLD_CLIENT = """\
from httpx import AsyncClient\t# kept  as it is
async def test_root(app):
    async with AsyncClient( app=app,base_url="http://é.test" ) as client :
        assert (await client.get("/")).status_code == 200"""
SLEEPS = """\
import time
def test_it():
    start()
    time.sleep(1){waiver}
"""


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files below a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def codes(output: str) -> list[str]:
    """The codes of the faults in a text."""
    return re.findall(r"^\S+:\d+:\d+: (ARD\d+)", output, re.MULTILINE)


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Write files, and call the command in their folder."""

    def call(files: dict[str, str], *words: str) -> Called:
        write(tmp_path, files)
        return arena("doctor", *words, folder=tmp_path)

    return call


# The rules


@pytest.mark.parametrize("code", sorted(RULES))
def test_a_rule_finds_its_failing_twin_and_passes_the_other(code: str, tmp_path: Path) -> None:
    """Both stand in its docstring, which is its page."""
    rule = RULES[code]
    for heading, expected in (("Fails", {code}), ("Passes", set[str]())):
        folder = tmp_path / heading
        write(folder, {"pytest.ini": "[pytest]\n", **twin(rule, heading)})
        files = list(suite_files([folder]))
        assert files
        assert {each.code for each in examine(files, [rule], processes=1)} == expected


def test_there_are_rules_enough_and_each_says_what_to_do() -> None:
    """A title in one line, why, the next step; no other tool's codes."""
    assert len(RULES) >= 24 + 3
    for code, rule in RULES.items():
        assert re.fullmatch(r"ARD\d{3}", code)
        assert rule.title
        assert rule.why
        assert rule.step
        assert "\n" not in rule.title
        assert twin(rule, "Fails")
        assert twin(rule, "Passes")
    names = [rule.name for rule in RULES.values()]
    assert len(set(names)) == len(names)


def test_no_code_is_one_of_ruffs() -> None:
    """Else `# noqa` and `select` would mean both."""
    listed = subprocess.run(
        [Path(sys.executable).with_name("ruff"), "linter"],
        capture_output=True,
        text=True,
        check=True,
    )
    prefixes = re.findall(r"^\s*([A-Z][A-Z0-9/]*) ", listed.stdout, re.MULTILINE)
    assert "ARG" in prefixes
    assert not [each for each in prefixes if "ARD".startswith(tuple(each.split("/")))] or (
        # pydocstyle's D and others of one letter: ruff reads the longest prefix, with digits.
        all(len(each) == 1 for each in prefixes if "ARD".startswith(tuple(each.split("/"))))
    )


def test_the_page_has_the_rules_of_today() -> None:
    """`python -m tests.doctor.page` writes it; ruff formats its blocks."""
    text = PAGE.read_text(encoding="utf-8")
    assert re.sub(r"\s+", " ", text) == re.sub(r"\s+", " ", written(text))


@pytest.mark.parametrize(
    "name, files, expected",
    [
        (
            "a parameter hides the app",
            {
                "tests/test_a.py": """
from app.main import app
from fastapi.testclient import TestClient
def test_it(app):
    client = TestClient(app)
""",
                "app/main.py": "app = FastAPI(lifespan=run)\n",
            },
            [],
        ),
        (
            "a function of the app's gives the engine",
            {
                "tests/test_a.py": """
from app import config, helpers
from app.models import Base
def test_at_once():
    Base.metadata.drop_all(config.get_engine())
def test_by_a_name():
    engine = config.get_engine()
    Base.metadata.drop_all(bind=engine)
def test_told_which(tmp_path):
    Base.metadata.drop_all(config.get_engine(f"sqlite:///{tmp_path}/a.db"))
def test_for_tests():
    Base.metadata.drop_all(config.get_test_engine())
def test_another():
    Base.metadata.drop_all(get_engine())
def get_engine(): ...
""",
                "app/__init__.py": "",
                "app/config.py": "def get_engine(url=None): ...\ndef get_test_engine(): ...\n",
            },
            ["ARD102", "ARD102"],
        ),
        (
            "a raw driver on a URL of the settings",
            {
                "tests/test_a.py": """
import os
import asyncpg, psycopg2, sqlite3
from app.config import settings
async def test_deletes():
    connection = await asyncpg.connect(settings.database_url)
    await connection.execute("DELETE FROM dancers")
def test_truncates():
    with psycopg2.connect(dsn=os.environ["DATABASE_URL"]) as connection:
        connection.cursor().execute("TRUNCATE dancers")
def test_drops():
    sqlite3.connect(settings.database_file).execute("drop table dancers")
def test_reads():
    sqlite3.connect(settings.database_file).execute("SELECT 1")
def test_its_own(tmp_path):
    sqlite3.connect(tmp_path / "a.db").execute("DROP TABLE dancers")
def test_of_tests():
    psycopg2.connect(settings.test_database_url).cursor().execute("TRUNCATE dancers")
""",
            },
            ["ARD404", "ARD404", "ARD404"],
        ),
        (
            "dependencies beside what is imported",
            {
                "tests/test_a.py": "from app import Base, Note\n",
                "app.py": """
async def get_db():
    async with session_maker() as session:
        yield session
        await session.commit()
async def early():
    async with session_maker() as session:
        yield session
        await session.commit()
async def job():
    async with session_maker() as session:
        yield session
        await session.commit()
class Base: pass
class Note(Base): pass
@app.post("/notes")
async def add(db=Depends(get_db), other=Depends(early, scope="function")): pass
""",
            },
            ["ARD409"],
        ),
        (
            "exported again",
            {
                "tests/test_a.py": """
from app import engine
def test_it():
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM dancers"))
""",
                "app/__init__.py": "from .db import make, engine\n",
                "app/db.py": "engine = create_engine(URL)\n",
            },
            ["ARD102"],
        ),
        (
            "in src, beside the tests",
            {
                "tests/test_a.py": """
from shop.db import session_maker
def test_it():
    with session_maker.begin() as session:
        session.add(Dancer())
""",
                "src/shop/db.py": "session_maker: Maker = sessionmaker(engine)\n",
            },
            ["ARD101"],
        ),
        (
            "status codes as names of tests",
            {
                "tests/test_a.py": """
def test_401_without_token(): assert get() == 401
def test_404_for_nobody(): assert get() == 404
"""
            },
            [],
        ),
        (
            "a helper asserts",
            {
                "tests/test_a.py": """
def test_it(client):
    response = client.get("/")
    is_right(response)
"""
            },
            [],
        ),
        (
            "a poll",
            {
                "tests/test_a.py": """
import time
def test_it():
    while not done():
        time.sleep(0.1)
"""
            },
            [],
        ),
        (
            "which answers are a success and a failure",
            {
                "tests/test_a.py": """
def test_it(client):
    r = client.get("/")
    assert r.status_code in (status.HTTP_200_OK, status.HTTP_404_NOT_FOUND)
    assert r.status_code != 500
    assert r.status_code in (200, 201)
    assert r.status_code not in (200, 404)
    assert r.status_code < 400
    assert 200 <= r.status_code < 500
"""
            },
            ["ARD507", "ARD507"],
        ),
        (
            "which sleeps are long",
            {
                "tests/test_a.py": """
import time
def test_it(client):
    time.sleep(0)
    time.sleep(0.0)
    time.sleep(delay)
    time.sleep(1e-5)
    with timeout(1):
        time.sleep(10)
"""
            },
            ["ARD602"],
        ),
        ("no test at all", {"tests/helper.py": "import time\ndef wait(): time.sleep(1)\n"}, []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_looks_alike_is_told_apart(
    name: str, files: dict[str, str], expected: list[str], doctor: Doctor
) -> None:
    """Each of these was, or would be, a false alarm or a miss."""
    assert codes(doctor({"pytest.ini": "[pytest]\n", **files}).output) == expected, name


GET_DB = """\
from sqlalchemy.orm import Session

def get_db():
    with Session(engine) as session:
        yield session
        session.commit()
"""
ROUTES = """\
from fastapi import Depends, FastAPI
from shop import db
app = FastAPI()
@app.get("/")
def root(session=Depends(db.get_db)): ...
"""
OF_APP = {"shop/db.py": GET_DB, "shop/main.py": ROUTES, "shop/__init__.py": "\n"}
USES_CLIENT = "def test_it(test_client):\n    assert test_client.get('/')\n"
USES_APP = f"from shop.main import app\n{USES_CLIENT}"


@pytest.mark.parametrize(
    "files",
    [
        {"pytest.ini": "[pytest]\narena_app = shop.main:app\n", "tests/test_a.py": USES_CLIENT},
        {"tests/test_a.py": USES_APP, "tests/test_b.py": USES_APP},
        {
            "pyproject.toml": '[tool.pytest.ini_options]\narena_app = "shop.main:app"\n',
            "tests/test_a.py": USES_CLIENT,
            "tests/test_b.py": "import shop.db\n",
        },
    ],
    ids=["of arena_app", "of the tests", "of both"],
)
def test_a_dependency_in_a_module_that_the_app_imports_is_named_once(
    files: dict[str, str], doctor: Doctor
) -> None:
    """At its own line, however many tests lead to it."""
    called = doctor({"pytest.ini": "[pytest]\n", **OF_APP, **files})
    assert codes(called.output) == ["ARD409"]
    assert "shop/db.py:3:1: ARD409 " in called.output


def test_a_comment_in_a_module_of_the_app_waives(doctor: Doctor) -> None:
    """The fault is in that file, so the waiver is too."""
    waived = GET_DB.replace("get_db():", "get_db():  # arena: ignore[ARD409] read by hand only")
    files = {"pytest.ini": "[pytest]\n", "tests/test_a.py": USES_APP, **OF_APP}
    assert codes(doctor(files | {"shop/db.py": waived}).output) == []


def test_rules_are_off_that_arena_ends(doctor: Doctor) -> None:
    """Where it is configured; the others go on."""
    files = twin(RULES["ARD301"], "Fails") | {"tests/test_a.py": SLEEPS.format(waiver="")}
    without = {f"a/{name}": text for name, text in files.items()}
    assert set(codes(doctor({"a/pytest.ini": "[pytest]\n", **without}, "a").output)) == {
        "ARD301",
        "ARD602",
    }
    with_it = {f"b/{name}": text for name, text in files.items()}
    called = doctor({"b/pytest.ini": "[pytest]\narena_app = shop:app\n", **with_it}, "b")
    assert codes(called.output) == ["ARD602"]
    assert "rules are off, because the project has an arena_… option" in called.errors
    assert "\nARD101, ARD102, " in called.errors


# Waivers


@pytest.mark.parametrize(
    "waiver, expected",
    [
        ("  # arena: ignore[ARD602] the device needs it", []),
        ("  # arena: ignore[ARD602]", ["ARD003"]),
        ("  # arena: ignore[ARD101] of another rule", ["ARD003", "ARD602"]),
        ("  # arena: ignore[ARD999] of no rule", ["ARD003", "ARD602"]),
        ("  # arena: ignore[ARD602, ARD101] one too many", ["ARD003"]),
        ('; "# arena: ignore[ARD602] in a text"', ["ARD602"]),
        ("\n# arena: ignore-file[ARD602] all of it", []),
    ],
)
def test_a_comment_with_a_reason_waives(waiver: str, expected: list[str], doctor: Doctor) -> None:
    """One without a reason, or for nothing, is told itself."""
    called = doctor({"test_a.py": SLEEPS.format(waiver=waiver)})
    assert sorted(codes(called.output)) == expected
    assert called.status == bool(expected)


# The command


def test_faults_are_selected_and_ignored(doctor: Doctor) -> None:
    """By codes and their beginnings; an unknown one is a wrong word."""
    files = {"test_a.py": SLEEPS.format(waiver=""), "test_b.py": "("}
    assert codes(doctor(files).output) == ["ARD602", "ARD001"]
    assert codes(doctor({}, "--select", "ARD6").output) == ["ARD602"]
    assert codes(doctor({}, "--ignore", "ARD602,ARD5").output) == ["ARD001"]
    called = doctor({}, "--select", "ARD9")
    assert called.status == 2
    assert "[A101]" in called.errors


def test_what_cannot_be_read_is_told_and_stops_nothing(doctor: Doctor, tmp_path: Path) -> None:
    """A syntax error, an encoding that is none, bytes that are no text, a link to nowhere."""
    (tmp_path / "test_a.py").write_text("# coding: no-such\n")
    (tmp_path / "test_b.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "test_c.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "test_d.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "test_e.py").write_text("x = " + "(" * 300)
    (tmp_path / "test_f.py").write_text("")
    called = doctor({"test_z.py": SLEEPS.format(waiver="")})
    found = codes(called.output)
    assert found.pop(3) in {"ARD001", "ARD002"}  # newer Pythons find no encoding beside a NUL
    assert found == [*["ARD002"] * 3, "ARD001", "ARD602"]
    assert called.status == 1


def test_a_link_to_nowhere_is_named_with_its_target(doctor: Doctor, tmp_path: Path) -> None:
    """Rights and encodings have nothing to do with it. A hidden link is an editor's lock."""
    (tmp_path / "test_c.py").symlink_to("nowhere.py")
    (tmp_path / "test_d.py").symlink_to("test_d.py")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / ".#test_a.py").symlink_to("me@host.4711")
    called = doctor({"test_f.py": ""})
    assert codes(called.output) == ["ARD002", "ARD002"]
    assert (
        "test_c.py is a link to nowhere.py, which is not a file. pytest skips it" in called.output
    )
    assert "test_d.py is a link to test_d.py, which is not a file" in called.output
    assert "the symbolic link" in called.output.partition("next:")[2].splitlines()[0]


def test_which_files_are_examined(tmp_path: Path) -> None:
    """Those of a suite; none of an environment, a build or a hidden folder."""
    inside = {"tests/helper.py", "tests/api/test_a.py", "shop/test_b.py", "shop/c_test.py"}
    outside = {".venv/lib/test_x.py", "build/test_x.py", "node_modules/a/test_x.py", "shop/x.py"}
    environment = {"python/test_x.py", "python/pyvenv.cfg"}
    write(tmp_path, dict.fromkeys(inside | outside | environment, ""))
    found = {each.relative_to(tmp_path).as_posix() for each in suite_files([tmp_path])}
    assert found == inside
    assert list(suite_files([tmp_path / "shop/x.py"])) == [tmp_path / "shop/x.py"]


@pytest.mark.parametrize("words", [["nowhere"], ["empty"]])
def test_nothing_to_examine_is_wrong_usage(words: list[str], doctor: Doctor) -> None:
    """Else a wrong path in CI would be a good suite for ever."""
    called = doctor({"empty/x.py": ""}, *words)
    assert called.status == 2
    assert all(part in called.errors for part in ("why:", "cause:", "next:", "[A101]"))


def test_a_rule_is_explained(doctor: Doctor) -> None:
    """With why, the next step, and both twins."""
    called = doctor({}, "--explain", "ARD207")
    assert called.status == 0
    for part in ("client-app-argument", "Instead:", "Fails:", "Passes:", "ASGITransport"):
        assert part in called.output
    assert len(re.findall(r"^ARD2\d\d ", doctor({}, "--explain", "ARD2").output, re.MULTILINE)) == 5
    assert doctor({}, "--explain", "ARD9").status == 2


def test_the_forms_say_the_same(doctor: Doctor) -> None:
    """Text, JSON, SARIF and GitHub's; a letter of several bytes is one column."""
    files = {"test_a.py": "import time\ndef test_é():\n    é = 1; time.sleep(1)\n"}
    assert doctor(files).output.startswith("test_a.py:3:12: ARD602 A test sleeps: `time.sleep(1)`")
    (fault,) = json.loads(doctor({}, "--output-format", "json").output)
    assert (fault["file"], fault["line"], fault["column"]) == ("test_a.py", 3, 12)
    assert fault["page"] == "docs/reference/doctor.md#ard602-sleep"
    run: dict[str, Any]
    (run,) = json.loads(doctor({}, "--output-format", "sarif").output)["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == sorted(RULES)
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "test_a.py"
    assert place["region"] == {"startLine": 3, "startColumn": 12, "endLine": 3}
    github = doctor({}, "--output-format", "github")
    assert github.output == (
        "::error file=test_a.py,line=3,endLine=3,col=12,title=ARD602::"
        "A test sleeps: `time.sleep(1)`\n"
    )
    assert github.errors == ""


# Repairs


@pytest.mark.parametrize("newline, mark", [("\n", ""), ("\r\n", ""), ("\n", "\ufeff")])
def test_a_repair_leaves_all_other_bytes(
    newline: str, mark: str, doctor: Doctor, tmp_path: Path
) -> None:
    """Odd spaces, ends of lines, a byte order mark, no end of line at the end."""
    file = tmp_path / "test_a.py"
    old = (mark + OLD_CLIENT.replace("\n", newline)).encode()
    file.write_bytes(old)
    shown = doctor({}, "--diff")
    assert shown.status == 1
    assert "transport=ASGITransport(app=app)" in shown.output
    assert file.read_bytes() == old
    assert doctor({}, "--fix").status == 0
    new = old.replace(b"import A", b"import ASGITransport, A")
    assert file.read_bytes() == new.replace(b"app=app", b"transport=ASGITransport(app=app)")
    assert doctor({}, "--diff").status == 0


@pytest.mark.parametrize(
    "text",
    [
        "from httpx import *\nc = AsyncClient(app=app)\n",
        "from httpx import AsyncClient\nc = AsyncClient(app=make(\n    1))\n",
        "from httpx import AsyncClient\nc = AsyncClient(app=app, transport=other)\n",
        "from other import AsyncClient\nc = AsyncClient(app=app)\n",
    ],
)
def test_what_is_not_sure_is_not_repaired(text: str, doctor: Doctor, tmp_path: Path) -> None:
    """The file stays as it is."""
    doctor({"test_a.py": text}, "--fix")
    assert (tmp_path / "test_a.py").read_text() == text


def test_a_repair_that_finds_something_else_changes_nothing() -> None:
    """Not a byte: the file is another one by now."""
    edits = {Replacement(1, 0, "a", "b"), Replacement(1, 4, "x", "y")}
    assert apply_edits(b"a = z\n", edits) == b"a = z\n"
    assert apply_edits(b"a = x\n", edits) == b"b = y\n"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files are read-only in another way here")
def test_a_file_that_cannot_be_written_is_told() -> None:
    """And nothing is written: neither this one nor another; root becomes somebody else for it."""
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name, "test_a.py"), Path(name, "test_b.py")]
        write(Path(name), {file.name: OLD_CLIENT for file in files})
        files[0].chmod(0o666)
        files[1].chmod(0o444)
        Path(name).chmod(0o777)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            called = arena("doctor", "--fix", folder=Path(name))
        finally:
            os.seteuid(user)
        assert called.status == 2
        assert "test_b.py cannot be written: Permission denied" in called.errors
        assert [file.read_text() for file in files] == [OLD_CLIENT] * 2
        assert sorted(Path(name).iterdir()) == files


def test_the_next_step_names_the_projects_own_module(doctor: Doctor) -> None:
    """One that is public, where several make tables."""
    tests = """
import pytest
@pytest.fixture
def tables(engine):
    Base.metadata.create_all(engine)
"""
    base = "from sqlalchemy.orm import DeclarativeBase\nclass Base(DeclarativeBase): ...\n"
    files = {"pytest.ini": "[pytest]\n", "tests/test_it.py": tests, "app/__init__.py": ""}
    files |= {"app/_internal.py": base}
    assert "`arena_schema` to `app.tables:Base`" in doctor(files | {"app/tables.py": base}).output


def test_the_next_step_names_no_invented_module(doctor: Doctor) -> None:
    """A project without models has a placeholder in it."""
    tests = """
import pytest
@pytest.fixture
def tables(engine):
    Base.metadata.create_all(engine)
"""
    files = {"pytest.ini": "[pytest]\n", "tests/test_it.py": tests}
    assert "`arena_schema` to `<module>:<Base>`" in doctor(files).output


# Many files


@pytest.mark.slow
def test_a_thousand_files_are_examined_by_several_processes(tmp_path: Path) -> None:
    """With the same faults, in the same order, as by one."""
    texts = {
        f"tests/test_{n}.py": SLEEPS.format(waiver="") if n % 7 == 0 else "" for n in range(1000)
    }
    write(tmp_path, texts)
    files = list(suite_files([tmp_path]))
    rules = list(RULES.values())
    faults = examine(files, rules, processes=2)
    assert len(faults) == 143
    assert faults == examine(files, rules, processes=1)


def test_nothing_of_a_run_is_imported() -> None:
    """Neither pytest nor SQLAlchemy: the command is quick, and works where the suite does not."""
    program = (
        "import sys; from pytest_arena._cli.doctor import _doctor\n"
        "assert not {'sqlalchemy', 'pytest', '_pytest', 'httpx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
