"""What is a PostgreSQL server told and asked?"""
