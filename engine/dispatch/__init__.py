"""Who gets which line next: pure state machines. No clock, no database, no network; whoever calls brings the time and keeps the
books.
"""
