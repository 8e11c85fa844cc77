"""In which forms is a document of scenarios handed out?"""
