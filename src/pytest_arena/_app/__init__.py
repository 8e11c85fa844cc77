"""How does a test talk to the app?"""
