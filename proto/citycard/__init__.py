"""Generated wire contract."""
