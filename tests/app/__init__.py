"""The tests of the room `_app`."""
