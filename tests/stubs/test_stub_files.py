"""Where do tests go, when files are there already and no line of them may change?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena.scenarios.stubs._files import StubFile, find_place

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_file_has_the_features_name(tmp_path: Path) -> None:
    """Its folder need not be there yet."""
    place = find_place(tmp_path / "e2e", "battles", elsewhere=())
    assert (place.path, place.is_new, place.gap) == (tmp_path / "e2e/test_battles.py", True, "")


@pytest.mark.parametrize(
    "code, gap",
    [
        ("import pytest\n\n\ndef test(): ...\n", "\n\n"),
        ("import pytest\n\n\ndef test(): ...", "\n\n\n"),
        ("import pytest\n\n\n\n\n", ""),
    ],
)
def test_two_empty_lines_come_before_what_is_added(tmp_path: Path, code: str, gap: str) -> None:
    """However the file ends."""
    (tmp_path / "test_battles.py").write_text(code)
    place = find_place(tmp_path, "battles", elsewhere=())
    assert (place.path.name, place.is_new, place.gap) == ("test_battles.py", False, gap)


@pytest.mark.parametrize(
    "code",
    [
        b"def test(): ...\n",
        b"import pytest as pt\n",
        b"if True:\n    import pytest\n",
        b"import pytest\ndef (:\n",
        b"\xef\xbb\xbfimport pytest\n",
        b"# coding: latin-1\nimport pytest\n",
        b"import pytest\n# \xe9\n",
        b"import pytest\n\x00",
    ],
    ids=["none", "other_name", "below", "broken", "bom", "latin", "no_utf8", "nul"],
)
def test_a_file_that_cannot_take_a_test_is_left_alone(tmp_path: Path, code: bytes) -> None:
    """The tests go to a file with a number: this one has no `pytest` to mark them with."""
    (tmp_path / "test_battles.py").write_bytes(code)
    place = find_place(tmp_path, "battles", elsewhere=())
    assert (place.path.name, place.is_new) == ("test_battles_2.py", True)
    place.path.write_text("import pytest\n")
    again = find_place(tmp_path, "battles", elsewhere=())
    assert (again.path, again.is_new) == (place.path, False)


def test_a_folder_of_that_name_is_left_alone(tmp_path: Path) -> None:
    """What is no file cannot be added to."""
    (tmp_path / "test_battles.py").mkdir()
    assert find_place(tmp_path, "battles", elsewhere=()).path.name == "test_battles_2.py"


def test_two_modules_of_one_name_would_be_one_to_python(tmp_path: Path) -> None:
    """Outside of packages a name that another folder has is not taken."""
    taken = {"test_battles.py"}
    assert find_place(tmp_path, "battles", elsewhere=taken).path.name == "test_battles_2.py"
    (tmp_path / "__init__.py").touch()
    assert find_place(tmp_path, "battles", elsewhere=taken).path.name == "test_battles.py"


def test_names_that_a_module_has_are_known(tmp_path: Path) -> None:
    """Those of functions, classes, imports and values, wherever they stand."""
    code = "import pytest\nfrom a import b as c\nD = 1\ndef e():\n    f = 2\nclass G: ...\n"
    (tmp_path / "test_battles.py").write_text(code)
    names = find_place(tmp_path, "battles", elsewhere=()).names
    assert names >= {"pytest", "c", "D", "e", "f", "G"}


def test_writing_changes_no_byte_that_is_there(tmp_path: Path) -> None:
    """Not even the ends of lines, and a file that has come in the meantime is not written over."""
    path = tmp_path / "test_battles.py"
    path.write_bytes(b"import pytest\r\n# no end")
    StubFile(path, "\r\nx = 1\r\n", tests=1, is_new=False).write()
    assert path.read_bytes() == b"import pytest\r\n# no end\r\nx = 1\r\n"
    with pytest.raises(FileExistsError):
        StubFile(path, "y = 2\n", tests=1, is_new=True).write()
    assert path.read_bytes() == b"import pytest\r\n# no end\r\nx = 1\r\n"
