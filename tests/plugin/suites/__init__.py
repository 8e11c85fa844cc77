"""Suites as people wrote them before they knew of arena: their apps, conftests and tests.

The code is what the source documents print, as far as it can run at all; a comment marks each
place that had to be different. Nothing in them knows of arena.
"""
