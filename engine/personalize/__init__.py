"""From validated order columns to secured APDU segments: card images, the secure channel, the proof that a card works."""
