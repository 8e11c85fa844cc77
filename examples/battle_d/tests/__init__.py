"""The tests of Battle-D: the real app, the real engine, the real commits."""
