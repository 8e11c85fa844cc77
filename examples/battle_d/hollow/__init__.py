"""Tests that pass and prove nothing: each lacks one thing, and the plugin says which."""
