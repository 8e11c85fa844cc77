"""Battle-D: run a dance tournament, from registration to the last final."""
