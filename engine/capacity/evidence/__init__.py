"""What a ledger tells of cards that were really made: how long, how often it failed, where the seconds went."""
