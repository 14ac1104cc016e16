"""Data directories get their keys: TEST keys for demo and development, the same masters whatever the custody; or a token that has some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from engine.production.keysetup import Setup, write_setup
from engine.profiles.masters import kek_specs, master_specs
from engine.profiles.model import load
from engine.virtual.birth import TEST_KMC
from keys.custody.policy import KeyPolicy
from keys.custody.sealed import SealedCustody
from keys.custody.software import SCRYPT_N, SoftwareCustody, provision_test_keys
from keys.custody.token import TokenConfig, TokenCustody, TokenSealer
from keys.custody.working import KeySpec
from keys.errors import Conflict
from keys.secrets import SecretBytes

MAKERS_ORIGIN: Final = "maker's public TEST key"


def create_test_store(data: Path, passphrase: str, profiles: list[str], *, scrypt_n: int = SCRYPT_N) -> int:
    """A software store marked TEST: a random master for every key the profiles name; the count."""
    makers, others = _specs(profiles)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with SoftwareCustody.create(data, passphrase, test=True, scrypt_n=scrypt_n) as store:
        for spec in makers:
            store.import_key(spec, TEST_KMC, origin=MAKERS_ORIGIN)
        return len(makers) + len(provision_test_keys(store, others))


def create_test_token_store(
    data: Path, config: TokenConfig, pin: SecretBytes, profiles: list[str], *, masters: Mapping[str, SecretBytes] | None = None
) -> int:
    """The same keys in an initialized token, SM4 masters sealed under a key of it; the count. Takes the PIN over.

    `masters` are put in instead of random ones, by key id. Raises Conflict (KEYSTORE_EXISTS, TOKEN_EXISTS), and as `TokenCustody.create`.
    """
    setup = Setup(custody="token", module=str(config.module), label=config.label, serial=config.serial or "")
    makers, others = _specs(profiles)
    given = dict(masters or {})
    with ExitStack() as stack:
        maker = stack.enter_context(SecretBytes(TEST_KMC))
        token = stack.enter_context(_test_token(config, pin))
        write_setup(data, setup)
        sealed = stack.enter_context(SealedCustody.create(data, TokenSealer(token.session), test=True))
        at_rest, in_token = KeyPolicy(custody="sealed"), KeyPolicy(custody="host-clear")
        sealed.generate_all([spec for spec in others if spec.algorithm == "sm4" and spec.key_id not in given], at_rest)
        for spec in makers:
            token.import_key(spec, maker, in_token, origin=MAKERS_ORIGIN)
        for spec in others:
            if spec.key_id not in given and spec.algorithm != "sm4":
                token.generate(spec, in_token)
            elif spec.key_id in given:
                holder, policy = (sealed, at_rest) if spec.algorithm == "sm4" else (token, in_token)
                holder.import_key(spec, given[spec.key_id], policy)
    return len(makers) + len(others)


def bind_token_store(data: Path, config: TokenConfig, pin: SecretBytes) -> int:
    """A production token and an empty store sealed under a key of it; how many keys the token has. Takes the PIN over.

    Raises Precondition TEST_KEYS_REFUSED, Conflict KEYSTORE_EXISTS, and as `TokenCustody.open`.
    """
    with TokenCustody.open(config, pin) as token:
        write_setup(data, Setup(custody="token", module=str(config.module), label=config.label, serial=config.serial or ""))
        SealedCustody.create(data, TokenSealer(token.session), test=False).close()
        return len(token.inventory())


def _test_token(config: TokenConfig, pin: SecretBytes) -> TokenCustody:
    """The token as an empty TEST key store: `citycard token init` may have made it one already. Raises Conflict TOKEN_EXISTS."""
    try:
        return TokenCustody.create(config, SecretBytes(pin.reveal()), test=True)
    except Conflict:
        custody = TokenCustody.open(config, SecretBytes(pin.reveal()), mode="test")
        if custody.inventory() or not custody.test:
            custody.close()
            message = f"token {config.label} holds keys already, or is not for TEST keys: it is not filled again"
            raise Conflict("TOKEN_EXISTS", message) from None
        return custody
    finally:
        pin.close()


def _specs(profiles: Iterable[str]) -> tuple[list[KeySpec], list[KeySpec]]:
    """Makers' keys and all others, each once. A maker's key is not random: virtual chips are born with it, and it is public."""
    makers, others = {}, {spec.key_id: spec for spec in kek_specs()}
    for name in profiles:
        profile = load(name).profile
        specs = {spec.key_id: spec for spec in master_specs(profile)}
        makers[profile.channel.transport.master] = specs.pop(profile.channel.transport.master)
        others.update(specs)
    return list(makers.values()), [spec for spec in others.values() if spec.key_id not in makers]
