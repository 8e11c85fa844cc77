"""What does a pytest run do for scenarios?"""
