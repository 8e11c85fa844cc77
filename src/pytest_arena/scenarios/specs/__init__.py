"""Reads specifications."""
