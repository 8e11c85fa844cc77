"""Which assertions of a test have passed, and could the app have made them fail?"""
