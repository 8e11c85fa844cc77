"""Records the passed assertions of a test, and finds those that cannot fail."""
