"""The tests of Battle-D."""
