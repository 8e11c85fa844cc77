"""API keys, and the queries that their holders may ask."""
