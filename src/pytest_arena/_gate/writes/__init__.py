"""Records writes of statements and sessions, and finds lost writes."""
