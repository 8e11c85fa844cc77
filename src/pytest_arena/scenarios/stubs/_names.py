"""What is a thing of a specification called in Python?"""

from __future__ import annotations

import keyword
import re
import unicodedata
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["free", "identifier", "own_slugs", "parameter", "slug"]

# Longer names are cut: a file's may have 255 bytes, and nobody reads more of a function's.
_LETTERS = 60

# What a stub uses itself.
_TAKEN = frozenset(
    {"client", "client_as", "db_session", "pytest", "request", "response"}
    | {"row", "scenario", "self", "table"}
)


def slug(text: str) -> str:
    """Return small ASCII words, joined by ``_``: for the name of a file or a function.

    A hash of the text is added where letters got lost, so that two names in another alphabet do
    not become one: ``Ein Käse`` is ``ein_kase``, ``Битва 1`` is ``1_e8334cae``.
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    plain = _without_accents(text)
    words = "_".join(re.findall(r"[a-z0-9]+", plain.lower()))
    if words and plain.isascii() and len(words) <= _LETTERS:
        return words
    return _with_hash(words, text)


def _with_hash(words: str, text: str) -> str:
    hashed = blake2b(text.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return "_".join(filter(None, [words[:_LETTERS].rstrip("_"), hashed]))


def own_slugs(texts: Iterable[str]) -> dict[str, str]:
    """Return a slug for each text; the first of two that would be the same has it as it is."""
    slugs: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        name = slug(text)
        slugs[text] = _with_hash(name, text) if name in slugs.values() else name
    return slugs


def _without_accents(text: str) -> str:
    """Signs say nothing that a name needs; a letter that is lost may: it is kept, and seen."""
    marks = re.compile(r"[\u0300-\u036f]")
    return re.sub(r"[^\w\s]|_", " ", marks.sub("", unicodedata.normalize("NFKD", text)))


def identifier(text: str) -> str:
    """Return a name for a variable, which is no keyword and none of a stub's own."""
    name = slug(text)
    name = f"_{name}" if name[0].isdigit() else name
    return f"{name}_" if keyword.iskeyword(name) or name in _TAKEN else name


def parameter(column: str) -> str:
    """Return the parameter that stands for a column of Examples; "" where no name would do.

    It has to be the column's own name, since by that the row is found which a test proves.
    """
    name = re.sub(r"\W+", "_", column.strip()).casefold()
    is_python = name.isidentifier() and unicodedata.normalize("NFKC", name) == name
    is_free = not keyword.iskeyword(name) and name not in _TAKEN and not name.startswith("_")
    return name if is_python and is_free else ""


def free(name: str, *, taken: Collection[str]) -> str:
    """Return ``name``, or with the first number after it that is not ``taken``."""
    number, tried = 1, name
    while tried in taken:
        number += 1
        tried = f"{name}_{number}"
    return tried
