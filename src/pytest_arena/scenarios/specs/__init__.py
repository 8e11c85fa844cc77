"""What do the specifications say?"""
