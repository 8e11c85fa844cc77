"""Enters and leaves levels: the states of the databases in a test or a wide fixture."""
