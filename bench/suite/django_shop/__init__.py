"""The shop in Django: the same tables and requests, for pytest-django."""
