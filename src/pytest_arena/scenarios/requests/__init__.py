"""Observes requests and what the app does in each."""
