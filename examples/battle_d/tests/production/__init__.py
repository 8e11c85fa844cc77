"""Suites over the production session maker, which begin every test by dropping all tables."""
