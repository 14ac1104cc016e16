"""Programs that find the S-boxes' boolean circuits. Run at development time; their output is checked in as C headers."""
