"""Where do the test databases of this process live?"""
