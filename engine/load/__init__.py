"""Load: virtual stations with cheap chips against a running server, and what the server did under them."""
