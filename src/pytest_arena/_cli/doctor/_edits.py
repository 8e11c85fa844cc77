# Apart: what writes into the reader's files is read on its own.
"""Repairs files where that is safe: the bytes around a repair stay as they are."""

from __future__ import annotations

import ast
import difflib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._cli.doctor._rule import Fault, Replacement


def repairs(faults: Iterable[Fault]) -> dict[Path, bytes]:
    """The new content of each file that has faults with a safe repair."""
    edits: dict[Path, set[Replacement]] = defaultdict(set)
    for fault in faults:
        if fault.edits:
            edits[Path(fault.file)].update(fault.edits)
    contents = {file: (file.read_bytes(), each) for file, each in edits.items()}
    changed = {file: repaired(content, each) for file, (content, each) in contents.items()}
    return {file: new for file, new in changed.items() if new != contents[file][0]}


def repaired(content: bytes, edits: set[Replacement]) -> bytes:
    """Content with all edits, or unchanged where one does not find what it expects."""
    lines = content.split(b"\n")
    mark = len(b"\xef\xbb\xbf") if content.startswith(b"\xef\xbb\xbf") else 0
    for edit in sorted(edits, key=lambda each: (each.line, each.column), reverse=True):
        row = lines[edit.line - 1] if edit.line <= len(lines) else b""
        at = edit.column + (mark if edit.line == 1 else 0)
        old = edit.old.encode()
        if row[at : at + len(old)] != old:
            return content
        lines[edit.line - 1] = row[:at] + edit.new.encode() + row[at + len(old) :]
    new = b"\n".join(lines)
    ast.parse(new)
    return new


def difference(file: Path, new: bytes) -> str:
    """The repair of a file as a unified diff."""
    before, after = (
        each.decode("utf-8", "replace").splitlines(keepends=True)
        for each in (file.read_bytes(), new)
    )
    lines = difflib.unified_diff(before, after, f"a/{file.as_posix()}", f"b/{file.as_posix()}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
