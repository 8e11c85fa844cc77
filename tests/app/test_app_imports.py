"""`_app` imports no higher package, and no framework before its first use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_arena

SOURCE = Path(str(pytest_arena.__file__)).parents[1]

FOREIGN = ("anyio", "fastapi", "httpx", "httpx2", "litestar", "starlette")


def python(code: str) -> str:
    """What a fresh Python prints, with errors for warnings."""
    head = f"import sys; sys.path[:0] = {[str(SOURCE), *sys.path]!r}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


MAKE = """
from pytest_arena._app._app_run import AppRun
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})
run = AppRun(app, find_hooks=lambda: None, lifespan=False)
"""


LOW = {"_app", "_config", "_interpreter", "_ledger", "_origin", "_owner", "_process", "_values"}


def test_the_package_imports_no_higher_package() -> None:
    """From the package: its own files, errors and values. From outside: no pytest, no database."""
    for path in (SOURCE / "pytest_arena" / "_app").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _imported(node):
                assert name.split(".")[0] not in {"pytest", "_pytest", "sqlalchemy"}, path
                if name.startswith("pytest_arena"):
                    assert name.split(".")[1] in (LOW | {"errors"}), path


def _imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module)):
            return [module]
    return []


def test_importing_the_package_imports_no_framework() -> None:
    """Each is imported by the call that needs it."""
    code = f"import pytest_arena._app; print(sorted(set({FOREIGN}) & sys.modules.keys()))"
    assert python(code) == "[]"


@pytest.mark.slow
def test_making_a_run_imports_no_framework() -> None:
    """A test without a client does not pay for one."""
    code = f"{MAKE}\nrun.close(); print(sorted(set({FOREIGN}) & sys.modules.keys()))"
    assert python(code) == "[]"


@pytest.mark.slow
def test_an_async_client_needs_no_framework() -> None:
    """Only the HTTP library."""
    code = f"""{MAKE}
import asyncio
async def main(): print((await run.new_client().get("/")).status_code)
asyncio.run(main())
print(sorted({{"fastapi", "litestar", "starlette"}} & sys.modules.keys()))
"""
    assert python(code).splitlines() == ["204", "[]"]


@pytest.mark.slow
def test_httpx_serves_where_httpx2_is_missing() -> None:
    """Async and sync, without a word about it, though Starlette has one."""
    code = f"""{MAKE}
sys.modules["httpx2"] = None
import asyncio
async def main(): print((await run.new_client().get("/")).status_code)
asyncio.run(main())
print(run.new_test_client().get("/").status_code)
run.close()
print(type(run.new_client()).__mro__[2].__module__)
"""
    assert python(code).splitlines() == ["204", "204", "httpx"]


@pytest.mark.parametrize(
    "missing, make, word",
    [
        (("httpx", "httpx2"), "new_client", "the async client needs httpx2"),
        (("httpx", "httpx2"), "new_test_client", "the sync test client does not import"),
        (("starlette", "starlette.testclient"), "new_test_client", "does not import"),
    ],
)
@pytest.mark.slow
def test_what_is_missing_is_named(missing: tuple[str, ...], make: str, word: str) -> None:
    """A ConfigError with the line to install it."""
    code = f"""{MAKE}
from pytest_arena.errors import ConfigError
sys.modules.update(dict.fromkeys({missing}))
try:
    run.{make}()
except ConfigError as error:
    print(error)
"""
    told = python(code)
    assert word in told
    assert "pip install" in told
