"""The production line: orders become jobs, lines become attempts, attempts become cards; every step durable before the next."""
