"""Finds which requests reach the app, and what the app does in each."""
