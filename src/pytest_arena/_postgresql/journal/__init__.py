"""The change journal: how changes are recorded and undone."""
