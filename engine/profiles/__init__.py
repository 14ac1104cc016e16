"""Card profiles: what a card holds, as reviewed TOML data; loaded strictly, linted with all findings at once, compiled once per job."""
