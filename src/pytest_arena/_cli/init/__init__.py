"""How does a project get its configuration and its first test?"""
