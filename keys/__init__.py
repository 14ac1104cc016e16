"""The key system: what keys exist, who holds them, and how card keys descend from them. Holds code only, never a key."""
