"""Opens a level for each test, observes the test, and restores the database."""
