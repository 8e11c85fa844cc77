"""End to end: from the request to the row."""
