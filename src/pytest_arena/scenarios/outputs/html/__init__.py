"""What does the specification look like as a page, with what is proven of it?"""

from pytest_arena.scenarios.outputs.html._page import page

__all__ = ["page"]
