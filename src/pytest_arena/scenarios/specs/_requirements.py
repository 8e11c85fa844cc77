"""Which business rule is meant by a heading, a quote or a tag?"""

from __future__ import annotations

import re

__all__ = ["is_id_tag", "requirement_in", "requirement_tag"]

# BR-TEST-001, REQ-12, SHOP-7. A hyphen stands in each: OAUTH2, IPV6 and ES6 are names.
_ID = re.compile(r"\b[A-Z][A-Z0-9]+(?:-[A-Z][A-Z0-9]*)*-\d+\b(?![-.]\d)")
_NAMES = re.compile(
    r"(?:AES|ASCII|CP|CVE|EC|ES|HTTP|IEC|IEEE|ISO|LATIN|PEP|RFC|RSA|SHA|TLS|UTF|WINDOWS)-"
)
_TAG = re.compile(r"@[A-Z][A-Z0-9]*(?:[-_][A-Z][A-Z0-9]*)*-\d+$")
_RULE_TAG = re.compile(r"@(?:BR|REQ)-")


def requirement_in(text: str) -> str:
    """Return the first id of a business rule in a text, or nothing.

    >>> requirement_in("Business Rule BR-TEST-001: Fixture Data Visibility (UTF-8)")
    'BR-TEST-001'
    """
    found = (match.group() for match in _ID.finditer(text))
    return next((one for one in found if not _NAMES.match(one)), "")


def requirement_tag(tags: tuple[str, ...], inherited: tuple[str, ...]) -> str:
    """Return the id of the business rule that tags name: ``@BR-…`` and ``@REQ-…`` anywhere.

    Any other id on the feature or the rule means a business rule too; on the scenario itself it
    is the scenario's own.
    """
    named = [tag for tag in tags if _RULE_TAG.match(tag)]
    named += [tag for tag in inherited if _TAG.match(tag)]
    return named[0][1:] if named else ""


def is_id_tag(tag: str) -> bool:
    """Whether a scenario's own tag is what it is known by: ``@BTL-3``, but not ``@BR-TEST-001``."""
    return bool(_TAG.match(tag)) and not _RULE_TAG.match(tag)
