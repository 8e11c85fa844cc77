"""The options of the user, read once and frozen."""
