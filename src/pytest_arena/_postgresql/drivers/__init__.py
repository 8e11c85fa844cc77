"""Connections to PostgreSQL that no engine opens: may they be opened, and where do they lead?"""
