"""Who conducts a test through all the rooms, and what does it show to the test?"""
