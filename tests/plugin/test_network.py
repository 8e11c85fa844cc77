"""Calls that leave the machine: in which runs and when they are refused, reported or allowed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

# A name that no server knows, so that no test of ours calls another machine either.
CALLS = """
import socket

def call():
    try:
        socket.getaddrinfo("api.example.invalid", 443)
    except OSError:
        pass

def call_an_address(is_looked_up):
    if is_looked_up:
        socket.getaddrinfo("198.51.100.7", 9)
    with socket.socket() as caller:
        caller.settimeout(0)
        caller.connect_ex(("198.51.100.7", 9))
"""
TESTS = """
import calls
import pytest

@pytest.mark.parametrize("time", range(3))
def test_that_calls(time, test_client):
    calls.call()

def test_that_does_not(test_client):
    pass
"""
REFUSED = "refused: a call to api.example.invalid"


def test_a_report_names_the_machine_and_the_first_test(example: Example) -> None:
    """The default. Nothing answers at the address, which is another machine than the name's."""
    tests = TESTS.replace("calls.call()", "calls.call(), calls.call_an_address(time == 0)")
    run = example.with_files(calls=CALLS, test_it=tests).run().expect(passed=4)
    run.says("test_it.py::test_that_calls[0]: reached another machine: api.example.invalid")
    assert run.says("another machine: 198.51.100.7").output.count("(also in 2 more)") == 2


@pytest.mark.parametrize(
    "option",
    [
        "arena_network=any",
        "arena_network=report api.example.invalid",
        "arena_network=refuse api.example.invalid",
        "arena_allow=postgresql://api.*:5432/shop",
    ],
)
def test_an_allowed_machine_is_not_named(example: Example, option: str) -> None:
    run = example.with_files(calls=CALLS, test_it=TESTS).run("-o", option).expect(passed=4)
    run.never_says("api.example.invalid")


def test_a_call_outside_of_tests_is_refused(example: Example) -> None:
    tests = TESTS[TESTS.index("def test_that_does_not") :]
    project = example.with_files(calls=CALLS, test_it=tests, conftest="import calls\ncalls.call()")
    project.run("-o", "arena_network=refuse").says(REFUSED, "calls.py:6", "[A204]")


TO_DEVELOPERS = """
import socket
import subprocess
import sys

SERVER = "import socket; s = socket.create_server(('', 0)); print(s.getsockname()[1], flush=True)"

def test_the_developers_server(test_client):
    socket.create_connection(("localhost", PORT)).close()

def test_a_server_of_a_test(test_client):
    program = subprocess.Popen(
        [sys.executable, "-c", SERVER + "; s.accept()"], stdout=subprocess.PIPE
    )
    with program:
        socket.create_connection(("127.0.0.1", int(program.stdout.readline()))).close()
"""


@pytest.mark.parametrize(
    "option, passed",
    [("report", 2), ("refuse", 1), ("refuse localhost", 2), ("refuse 127.0.0.1:{}", 2)],
)
@pytest.mark.parametrize("workers", [(), ("-p", "xdist.plugin", "-n1")])
def test_a_server_that_ran_before_the_tests(
    example: Example, option: str, passed: int, workers: tuple[str, ...]
) -> None:
    """It may be the developer's own app. A server of the run may be reached."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        tests = TO_DEVELOPERS.replace("PORT", str(port))
        option = "arena_network=" + option.format(port)
        run = example.with_files(test_it=tests).run("-o", option, *workers)
    named = (
        f"{port}, a server that ran" if passed == 1 else f"ran before the tests: 127.0.0.1:{port}"
    )
    assert run.outcomes["passed"] == passed
    assert (named in run.output) == (option.endswith("report") or passed == 1)
