"""The ways by which the project's conftest changes files, each its own."""

CHANGES = ("removed", "renamed", "replaced", "written", "child")
