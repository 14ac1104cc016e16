"""`citycard calc`: card-key arithmetic from JSON lines, for people who check a card, a profile or another program by hand.

Touches no key store and no server. Keys come on standard input only, and leave on standard output only where they were asked for.
"""

from engine.calc.runner import run

__all__ = ["run"]
