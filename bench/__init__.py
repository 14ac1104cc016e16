"""Measurements: `make bench`. Each figure carries CPU, commit and batch size; nothing here asserts a time."""
