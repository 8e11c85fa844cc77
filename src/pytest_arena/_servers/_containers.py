"""A PostgreSQL in a container, by the package testcontainers, where a Docker daemon runs."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pytest_arena._servers._base import Server, Unavailable, Wanted
from pytest_arena._servers._entrance import enter
from pytest_arena._values import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._servers._entrance import Entered

__all__ = ["ContainersSource"]

_IMAGE = "postgres:17"
_PORT = 5432
_LOGIN = {"username": "postgres", "password": "arena", "dbname": "postgres"}
# What is in it has to survive nothing.
_COMMAND = (
    "postgres -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c autovacuum=off"
    " -c jit=off -c max_connections=200"
)
_DATA = "/var/lib/postgresql/data"


class ContainersSource:
    """A container for each process, gone with the process: testcontainers sees to it."""

    name = "a container"

    def find(self, wanted: Wanted) -> Server:  # noqa: ARG002 - it depends on nothing that is wanted
        """Start one."""
        if find_spec("testcontainers") is None:
            raise Unavailable("the package testcontainers is not installed")
        container, address = _started()
        try:
            return _Container(container, enter(address))
        except BaseException:
            _stop(container)
            raise


def _started() -> tuple[Any, Address]:
    container = None
    # On the way to a daemon and back, three libraries have errors of their own.
    try:
        with _quiet():
            container = _container_class()(_IMAGE, **_LOGIN)
            container.with_command(_COMMAND)
            container.with_kwargs(tmpfs={_DATA: "rw"})
            container.start()
            return container, _address(container)
    except Exception as error:
        _stop(container)
        raise Unavailable(f"no container could be started: {str(error)[:200]}") from error


def _container_class() -> Any:
    # It has moved: the new place first, the old one is deprecated where both are there.
    with suppress(ModuleNotFoundError):
        return import_module("testcontainers.community.postgres").PostgresContainer
    return import_module("testcontainers.postgres").PostgresContainer


@contextmanager
def _quiet() -> Iterator[None]:
    # A suite that takes warnings for errors means its own, not those of a tool's tool.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _address(container: Any) -> Address:
    host, port = container.get_container_host_ip(), int(container.get_exposed_port(_PORT))
    return Address(
        "postgresql", host, port, _LOGIN["username"], _LOGIN["dbname"], _LOGIN["password"]
    )


def _stop(container: Any) -> None:
    with suppress(Exception):
        container.stop()


class _Container:
    is_private = True

    def __init__(self, container: Any, entered: Entered) -> None:
        self._container, self._owner = container, os.getpid()
        self.address = entered.address
        where = f"in a container of {_IMAGE} on {entered.address.server}"
        self.shown = f"PostgreSQL {entered.version}, {where}"

    def close(self) -> None:
        """Stop it; a forked child leaves its parent's alone."""
        container, self._container = self._container, None
        if container is not None and os.getpid() == self._owner:
            _stop(container)
