"""Schema migrations, run by `engine.ledger.migrate`. A migration never imports `schema`: what it built stays what it built."""
