"""Two simulations that agree: card by card, and by station and shift for a whole city."""
