"""Enters and leaves levels: the lifetimes of tests and of wide fixtures."""
