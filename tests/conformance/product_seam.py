"""The seam: what the stories need to know of a database product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.conformance.setting import Setting

__all__ = ["Product"]


class Product(Protocol):
    """A database product: the developer's own database, and how a story looks at the test's."""

    gives_numbers_back: bool  # whether a sequence goes back where its transaction does
    keeps_url: bool  # whether a test's database is at one URL for the whole run

    def options(self, setting: Setting) -> Mapping[str, str]:
        """Return more options of the plugin, for the project of the stories."""

    def urls(self, setting: Setting, folder: Path) -> dict[str, str]:
        """Return constants of the stories: URL, SYNC_URL (its sync twin) and OTHER_URLS (a list).

        All mean the developer's own database; the first two as an app writes it, the others in
        every other way that it can be written.
        """

    def files(self, setting: Setting) -> dict[str, str]:
        """Return modules of the stories.

        ``product.py`` has

        - ``prepare(engine)``: sets the app's own listeners;
        - ``TAKES_A_NUMBER``: a statement that moves the dancers' sequence, and nothing else;
        - ``dump(url)``: all that a fresh connection sees;
        - ``moved()``: how many bytes have been read and written for databases until now;
        - ``go_around()``: connects to the developer's database without SQLAlchemy.
        """

    def stories(self, setting: Setting) -> Mapping[str, str]:
        """Return stories that this product alone has, by the names of their files."""

    def lacks(self, setting: Setting) -> Mapping[str, str]:
        """Return what this product itself cannot keep under a setting, as `Setting.lacks`."""

    def version(self, setting: Setting) -> str:
        """Return the product's name and version."""

    def make_developers(self, setting: Setting, folder: Path) -> None:
        """Make the developer's own database, with something in it."""

    def developers(self, setting: Setting, folder: Path) -> object:
        """Return the developer's database as it stands now, so that any touch of it shows."""

    def secrets(self, setting: Setting) -> Sequence[str]:
        """Return what must not be shown: passwords."""

    def is_gone(self, setting: Setting, url: str) -> bool:
        """Whether nothing is left of a test's database that had this URL."""
