"""Records writes of statements and sessions, and finds those that nothing committed."""
