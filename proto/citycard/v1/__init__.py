"""The wire contract, generated from proto/citycard/v1 by proto/generate.py."""
