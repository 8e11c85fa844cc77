"""Ways to isolate the tests of the zoo: all but pytest-arena are plugins of this package."""
