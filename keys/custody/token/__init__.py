"""Keys in a PKCS#11 token: any vendor's module by its path, one dedicated thread, keys that cannot be read.

custody      TokenCustody, the `Custody` of a token
session      the logged-in session, its states, and how it recovers from faults
root         the token's mark, its root secret, and TokenSealer for the sealed custody
initialize   a blank token made ready; a locked PIN set anew
"""

from keys.custody.token.custody import TokenCustody
from keys.custody.token.initialize import initialize, unlock
from keys.custody.token.root import TokenSealer
from keys.custody.token.session import TokenConfig, TokenSession, TokenState

__all__ = ["TokenConfig", "TokenCustody", "TokenSealer", "TokenSession", "TokenState", "initialize", "unlock"]
