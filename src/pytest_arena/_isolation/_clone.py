"""``clone``. (In the making.)"""


class Clone:
    """In the making."""

    name = "clone"
