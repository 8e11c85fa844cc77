"""Decides whether a scenario is proven by what a test did."""
