"""Tests of the shared transaction, by real drivers on a real server."""
