"""How is a database on a server brought back?"""
