"""What would a test of this scenario look like?"""
