"""Leads the app's engines into the test's database, and blocks all others."""
