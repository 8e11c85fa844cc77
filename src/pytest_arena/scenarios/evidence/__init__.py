"""Decides whether a scenario is proven."""
