"""Records what statements and sessions write, and which of it is lost."""
