"""In which forms are scenarios handed out: documents, pages, lines, tests to be written?"""
