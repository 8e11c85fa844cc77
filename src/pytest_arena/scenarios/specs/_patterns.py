"""Which files does a folder or a pattern mean, wherever symbolic links lead?"""

from __future__ import annotations

import os
from glob import escape, glob
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["files_in", "matching", "once"]

_INSTALLED = "node_modules"


def files_in(folder: Path, failed: Callable[[OSError], object]) -> Iterator[Path]:
    """Yield the files of a folder and all below it; each folder once, whatever links to it.

    What is hidden, and what others have installed, is nobody's specification. A folder that cannot
    be read is handed to ``failed``.
    """
    for place, files in _walked(folder, failed):
        yield from (Path(place, one) for one in files)


def _walked(
    folder: Path, failed: Callable[[OSError], object]
) -> Iterator[tuple[str, Sequence[str]]]:
    seen: set[str] = set()
    waiting = [str(folder)]
    while waiting:
        for place, folders, files in os.walk(waiting.pop(0), onerror=failed):
            seen.add(os.path.realpath(place))
            folders[:] = [one for one in folders if one[0] != "." and one != _INSTALLED]
            yield place, files
            # Those that are links os.walk does not enter. They wait until all others are seen.
            inside = (Path(place, one) for one in sorted(folders))
            waiting += [str(one) for one in inside if one.is_symlink()]
        waiting = [one for one in waiting if not _is_seen(one, seen)]


def _is_seen(link: str, seen: set[str]) -> bool:
    """Whether a link leads to where one has been, or back to where it comes from."""
    real = os.path.realpath(link)
    return real in seen or Path(os.path.realpath(Path(link).parent)).is_relative_to(real)


def matching(pattern: str, root: Path) -> Iterator[Path]:
    """Yield the files that a pattern means; ``**`` stands for any folders, as in ``files_in``.

    The library's own ``**`` enters each link, and with links that lead to each other never ends.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        hits = (root / hit for hit in glob(pattern, root_dir=root))  # noqa: PTH207 - pathlib's has no root
        yield from (hit for hit in hits if not hit.is_dir())
        return
    place = parts.index("**")
    rest = Path(*parts[place + 1 :]) if parts[place + 1 :] else Path("*")
    starts = glob(str(Path(*parts[:place])), root_dir=root) if place else [""]  # noqa: PTH207 - as above
    for start in starts:
        for folder, _ in _walked(root / start, lambda _: None):
            yield from matching(str(Path(escape(folder), rest)), root)


def once(paths: Iterable[str], root: Path) -> list[str]:
    """Return the paths in order, without those that only lead to a file which is there anyway."""
    by_file: dict[str, list[str]] = {}
    for path in sorted(paths):
        by_file.setdefault(os.path.realpath(root / path), []).append(path)
    real = os.path.realpath(root)
    return sorted(
        next((one for one in same if os.path.join(real, one) == file), same[0])  # noqa: PTH118 - a comparison of texts
        for file, same in by_file.items()
    )
