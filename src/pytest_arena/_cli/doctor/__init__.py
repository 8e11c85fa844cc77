"""`arena doctor`: finds faults in a test suite without importing it."""
