"""The agent beside the printer: one process per station, its own small journal, secured bytes in and answers out. Never a key."""
