"""Capacity: what was measured, what a plan asks, when it will be done and how sure that is."""
