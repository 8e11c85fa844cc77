"""The tests of the package `_app`."""
