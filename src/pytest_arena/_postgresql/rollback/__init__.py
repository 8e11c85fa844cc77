"""A proxy that lets all connections of a test share one transaction of one connection."""
