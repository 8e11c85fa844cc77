"""What is wrong in a test suite, found without importing it?"""
