"""What a test looks for on a page."""

import re

CARD = re.compile(r'<article class="battle-card".*?</article>', re.DOTALL)


def battle_cards(html: str) -> list[str]:
    """Cut the battle cards out of a page, in the order in which they stand there."""
    return CARD.findall(html)


def is_whole_page(html: str) -> bool:
    """Is it a page of its own, and not a part for HTMX?"""
    return html.lstrip().startswith("<!doctype html>")
