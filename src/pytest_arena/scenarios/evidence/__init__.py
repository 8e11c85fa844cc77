"""Is a scenario proven, by what a test did in this run?"""
