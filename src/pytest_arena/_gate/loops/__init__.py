"""Pools and connections that are used in several event loops."""
