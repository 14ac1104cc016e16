"""A scenario: what is asked, read from TOML with every fault at once, on a calendar."""
