"""Is a configuration changed where nothing else of it changes, and written whole or not at all?"""

from __future__ import annotations

import configparser
import os
import tempfile
import tomllib
from pathlib import Path

import pytest
from iniconfig import IniConfig

from pytest_arena._cli._file_changes import FileChange, write_all
from pytest_arena._cli.init._edit import with_values
from pytest_arena.errors import ConfigError

VALUES: dict[str, str | list[str]] = {
    "pythonpath": ["."],
    "arena_app": "main:app",
    "arena_schema": "shop = app:Base\nother = app:Other",
    "arena_env": ["A_URL", "B_URL"],
}
TOML = {
    "empty": "",
    "no table of pytest": '[project]\nname = "x"  # y\n',
    "no end of line": "[tool.pytest.ini_options]\naddopts = '-q'",
    "windows": "[tool.pytest.ini_options]\r\naddopts = '-q'\r\n\r\n# of ruff\r\n[tool.ruff]\r\n",
    "a value like a table": "[tool.pytest.ini_options]\naddopts = [\n[1],\n  ]\n[tool.x]\na = 1\n",
    "a string like a table": (
        "[tool.x]\ntext = '''\n[tool.pytest.ini_options]\n'''\n\n[tool.pytest.ini_options]\nb = 1\n"
    ),
    "quoted": '[tool."pytest".ini_options]  # here\nminversion = "7"\n\n\n\n[z]\n',
    "blanks": '[ tool . pytest . ini_options ]\nminversion   =   "7"   # odd\n',
    "native": '[tool.pytest]\nminversion = "9"\n\n[tool.other]\n',
    "comments": "[tool.pytest.ini_options]\n# one\na = 1\n# two, of the next\n\n[tool.ruff]\n",
    "a table without values": "[tool.pytest.ini_options]\n[tool.ruff]\n",
    "other tables below": "[tool.pytest.ini_options]\na = 1\n[[tool.x]]\nb = 1\n",
}
REFUSED = {
    "inline": 'tool.pytest.ini_options = { addopts = "-q" }\n',
    "dotted": '[tool]\npytest.ini_options.addopts = "-q"\n',
    "broken": "[tool.pytest.ini_options\n",
    "no text": "\xff\xfe",
}
INI = {
    "pytest.ini": "[pytest]\naddopts =\n    -q\n    -x\n; a comment\nmarkers = a: b\n",
    "tox.ini": "[tox]\nenvlist = a\n\n[pytest]\naddopts=-q\n\n# of the next\n[testenv]\ndeps = x\n",
    "setup.cfg": "[metadata]\r\nname = %(x)s\r\n\r\n[tool:pytest]\r\naddopts = -q",
    ".pytest.ini": "",
}


def added(before: str, after: str) -> str:
    """The lines that were added; all others are what they were, in their order."""
    rest, lines = before, []
    for line in after.splitlines(keepends=True):
        if rest.startswith(line):
            rest = rest[len(line) :]
        elif rest and line.startswith(rest):  # the last line had no end
            rest = ""
        else:
            lines.append(line)
    assert not rest
    return "".join(lines)


@pytest.mark.parametrize("text", TOML.values(), ids=TOML)
def test_toml_is_kept_byte_for_byte(tmp_path: Path, text: str) -> None:
    """Around the lines that are added; and they mean what they should."""
    file = tmp_path / "pyproject.toml"
    file.write_bytes(text.encode())
    edit = with_values(file, VALUES)
    after = edit.after.decode()
    lines = added(text, after)
    assert 'arena_app = "main:app"' in lines
    assert ("\r\n" in lines) is ("\r\n" in text)
    table = tomllib.loads(after.replace("\r\n", "\n"))["tool"]["pytest"]
    options = table.get("ini_options", table)
    assert options["pythonpath"] == ["."]
    assert options["arena_schema"].split("\n") == ["shop = app:Base", "other = app:Other", ""]
    assert file.read_bytes() == text.encode()


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_a_form_that_is_not_understood_is_refused(tmp_path: Path, text: str) -> None:
    """The lines to paste are said, and the file stays."""
    file = tmp_path / "pyproject.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        with_values(file, {"arena_app": "main:app"})
    assert 'by hand:   arena_app = "main:app"' in str(caught.value)
    assert file.read_bytes() == text.encode("latin-1")


@pytest.mark.parametrize("name", INI)
def test_ini_is_kept_byte_for_byte(tmp_path: Path, name: str) -> None:
    """And pytest's own parser reads what was added."""
    file = tmp_path / name
    file.write_bytes(INI[name].encode())
    edit = with_values(file, VALUES)
    added(INI[name], edit.after.decode())
    section = IniConfig(name, data=edit.after.decode())[
        "tool:pytest" if name == "setup.cfg" else "pytest"
    ]
    assert section["arena_app"] == "main:app"
    assert section["arena_env"].split() == ["A_URL", "B_URL"]
    assert section["arena_schema"].strip().split("\n") == ["shop = app:Base", "other = app:Other"]


def test_pytest_toml_has_a_table_of_its_own(tmp_path: Path) -> None:
    """That of pytest 9."""
    file = tmp_path / "pytest.toml"
    file.write_text("[pytest]\naddopts = ['-q']\n")
    after = with_values(file, {"arena_app": "main:app"}).after.decode()
    assert after == "[pytest]\naddopts = ['-q']\narena_app = \"main:app\"\n"


def test_a_link_stays_one_and_keeps_its_rights(tmp_path: Path) -> None:
    """What it leads to is changed."""
    real, link = tmp_path / "real.ini", tmp_path / "pytest.ini"
    real.write_bytes(b"[pytest]\n")
    real.chmod(0o640)
    link.symlink_to(real)
    write_all([with_values(link, {"arena_app": "main:app"})])
    assert link.is_symlink()
    assert real.read_bytes() == b"[pytest]\narena_app = main:app\n"
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_file_that_has_changed_meanwhile_is_not_written(tmp_path: Path) -> None:
    """Somebody has saved it while the diff was read."""
    file = tmp_path / "pytest.ini"
    file.write_bytes(b"[pytest]\n")
    edit = with_values(file, {"arena_app": "main:app"})
    file.write_bytes(b"[pytest]\naddopts = -q\n")
    with pytest.raises(ConfigError, match="it has changed since it was read"):
        write_all([edit])
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"[pytest]\naddopts = -q\n"


def test_where_one_cannot_be_moved_to_its_place_the_other_is_taken_back(tmp_path: Path) -> None:
    """A folder has taken its name since it was looked at."""
    first, second = tmp_path / "pytest.ini", tmp_path / "taken"
    first.write_bytes(b"[pytest]\n")
    edits = [
        with_values(first, {"arena_app": "main:app"}),
        FileChange(second, None, b"x"),
        FileChange(second / "file", None, b"x"),
    ]
    with pytest.raises(ConfigError):
        write_all(edits)
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["pytest.ini"]
    assert first.read_bytes() == b"[pytest]\n"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files are read-only in another way here")
@pytest.mark.parametrize("folder_mode, file_mode", [(0o555, 0o666), (0o777, 0o444)])
def test_what_is_read_only_is_told(folder_mode: int, file_mode: int) -> None:
    """Nothing is half written; root, whom no rights hold, becomes somebody else for it."""
    with tempfile.TemporaryDirectory() as name:
        folder, user = Path(name), os.geteuid()
        first, file = folder / "first" / "pytest.ini", folder / "second" / "pytest.ini"
        for each in (first, file):
            each.parent.mkdir()
            each.write_bytes(b"[pytest]\n")
        folder.chmod(0o777)
        first.parent.chmod(0o777)
        first.chmod(0o666)
        file.chmod(file_mode)
        file.parent.chmod(folder_mode)
        changes = [with_values(each, {"arena_app": "main:app"}) for each in (first, file)]
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(
                ConfigError, match=r"pytest\.ini cannot be written: Permission denied"
            ):
                write_all(changes)
        finally:
            os.seteuid(user)
        file.parent.chmod(0o755)
        assert sorted(each for each in folder.rglob("*") if each.is_file()) == [first, file]
        assert first.read_bytes() == file.read_bytes() == b"[pytest]\n"


def test_what_configparser_cannot_read_is_refused(tmp_path: Path) -> None:
    """As pytest would refuse it."""
    file = tmp_path / "pytest.ini"
    file.write_text("no section\n")
    with pytest.raises(configparser.Error):
        configparser.RawConfigParser().read(file)
    with pytest.raises(ConfigError):
        with_values(file, {"arena_app": "main:app"})
