"""Programs that find the boolean circuits of the S-boxes. They run at development time; their output is checked in as C
headers.
"""
