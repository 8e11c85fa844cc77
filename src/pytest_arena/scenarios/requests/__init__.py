"""Which requests of a test reach the app, and what does the app do in each?"""
