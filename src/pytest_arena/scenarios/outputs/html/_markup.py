"""How does text become safe on a page? Whatever is not ``Html`` yet is escaped on its way in."""

from __future__ import annotations

from html import escape

__all__ = ["Attribute", "Html", "element", "joined"]

Attribute = str | int | bool | None
"""True stands alone (``hidden``), False and None are left out."""

_VOID = frozenset({"br", "hr", "input", "link", "meta"})


class Html(str):
    """Markup that may stand on a page as it is: made here, or by a renderer that escapes."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: Attribute) -> Html:
    """Return one element. ``class_`` is ``class``, and ``data_rule`` is ``data-rule``.

    >>> print(element("p", "2 < 3", element("br"), class_="a"))
    <p class="a">2 &lt; 3<br></p>
    """
    start = f"<{name}{''.join(map(_attribute, attributes, attributes.values()))}>"
    return Html(start if name in _VOID else f"{start}{joined(*children)}</{name}>")


def joined(*children: str, by: str = "") -> Html:
    """Return the children one after another, those escaped that are not markup."""
    return Html(by.join([one if type(one) is Html else escape(one) for one in children]))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    known_as = name.rstrip("_").replace("_", "-")
    return f" {known_as}" if value is True else f' {known_as}="{escape(str(value))}"'
