"""Finds the versions of the libraries that a build imports."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

# A search in the text of the metadata: `importlib.metadata` takes a second to parse it.
# https://packaging.python.org/en/latest/specifications/recording-installed-packages/
_REQUIRED = re.compile(r"^Requires-Dist: *([\w.-]+)(?!.*\bextra\b)", re.MULTILINE)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of the libraries that have these packages, and of their requirements."""
    folders = _folders()
    waiting = []
    for package in {*packages} - sys.stdlib_module_names - {""}:
        name = _normalized(package)
        if name in folders:
            waiting.append(name)
        else:
            waiting.extend(_libraries_of(package, folders))
    libraries: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name in libraries or name not in folders:
            continue
        libraries[name] = _version(folders[name])
        metadata = _text(folders[name] / "METADATA")
        waiting.extend(map(_normalized, _REQUIRED.findall(metadata)))
    return dict(sorted(libraries.items()))


def _libraries_of(package: str, folders: Mapping[str, Path]) -> Iterator[str]:
    """Yield the libraries that have installed a package, such as PyYAML for ``yaml``."""
    for name, folder in folders.items():
        installed = "\n" + _text(folder / "RECORD")
        if f"\n{package}/" in installed or f"\n{package}.py," in installed:
            yield name


def first_other_version(known: Mapping[str, str]) -> str:
    """Describe the first library that has another version now. Return "" for none."""
    folders = _folders() if known else {}
    for name, version in known.items():
        if name not in folders:
            return f"{name} {version} is not installed now"
        now = _version(folders[name])
        if now != version:
            return f"{name} is {now}, and was {version}"
    return ""


def _folders() -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for place in dict.fromkeys(sys.path):
        for entry in _entries(place):
            if not entry.endswith(_ENDING):
                continue
            name = _normalized(entry.partition("-")[0])
            folders.setdefault(name, Path(place, entry))
    return folders


_ENDING = ".dist-info"


def _entries(place: str) -> list[str]:
    try:
        return os.listdir(place or ".")  # noqa: PTH208 - only names, for each run
    except OSError:  # an archive, or no folder
        return []


def _version(folder: Path) -> str:
    return folder.name.removesuffix(_ENDING).partition("-")[2]


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
