"""What is written down of each change of a row on PostgreSQL, and how is it taken back?"""
