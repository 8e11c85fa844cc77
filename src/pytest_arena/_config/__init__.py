"""The options of the user. They are read once and frozen."""
