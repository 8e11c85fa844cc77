"""Ways to isolate tests without pytest-arena: each is a plugin with the fixture `client`."""
