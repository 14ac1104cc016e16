"""A PKCS#11 token as a ceremony's vault. What comes out of a ceremony goes in as a key that cannot be read, and stays.

A master in a token is never given away again: it is backed up in the ceremony that makes it, by the shares themselves.
"""

from __future__ import annotations

from typing import Literal

from keys.ceremony.clerk import TokenClerk
from keys.ceremony.plan import Export, PlannedKey, key_policy
from keys.ceremony.vault import Vault, not_exportable
from keys.custody.token import TokenCustody
from keys.custody.working import KeySpec
from keys.errors import Unsupported
from keys.hierarchy import KeyState, MasterKeyRecord
from keys.keyblock.handover import Agreed, HandedKey
from keys.secrets import SecretBytes

_STAYS = "what is in a token never leaves it"


class TokenVault(Vault):
    """See `keys.ceremony.vault.Vault`. Does not own the custody: closing that is its opener's business."""

    def __init__(self, custody: TokenCustody, policy: Literal["host-clear", "token-only"]) -> None:
        """`policy`: how the token holds every key that is installed here, as the plan says."""
        super().__init__(TokenClerk(custody))
        self._custody = custody
        self._policy = policy

    @property
    def _holder(self) -> TokenCustody:
        return self._custody

    def install(self, key: PlannedKey, secret: SecretBytes, origin: str) -> MasterKeyRecord:
        """See `Vault.install`; also Exhausted TOKEN_FULL, Unsupported TOKEN_ALGORITHM, InvalidInput KEY_POLICY for an exportable key."""
        spec = KeySpec(key.key_id, key.domain, key.algorithm, key.purpose, key.level)
        policy = key_policy(key, self._policy)
        return self._custody.import_key(spec, secret, policy, origin=origin, version=key.version, state=KeyState.PRE_ACTIVE)

    def reveal(self, key_id: str, version: int) -> SecretBytes:
        """See `Vault.reveal`: always refused."""
        raise not_exportable(key_id, version, _STAYS)

    def wrap(self, key_id: str, version: int, export: Export) -> str:
        """See `Vault.wrap`: always refused."""
        raise not_exportable(key_id, version, f"{_STAYS}, not under {export.kek} either")

    def unwrap(self, handed: HandedKey, scheme: str, kek: str, agreed: Agreed) -> SecretBytes:
        """See `Vault.unwrap`: always refused."""
        what = f"key {handed.key_id} of level {agreed.level} by {scheme}"
        raise Unsupported("KEK_CUSTODY", f"{what}: {kek} must be in the sealed store; a token does not open key blocks")
