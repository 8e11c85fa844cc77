"""Suites of tests as users write them, and the harness that runs them."""
