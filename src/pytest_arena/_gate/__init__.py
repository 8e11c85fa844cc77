"""How is an unmodified app led into the test's database, and kept from any other?"""
