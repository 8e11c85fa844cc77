"""Which database is meant, what is it built from, and what stands in it?"""
