"""The contract of `contract.py` against every custody, the same masters in each."""

import pytest

from keys.custody.composite import CompositeCustody
from keys.custody.policy import KeyPolicy
from keys.custody.sealed import RebuiltKey, SealedCustody
from keys.custody.software import SoftwareCustody
from keys.custody.token import TokenSealer
from keys.secrets import SecretBytes
from tests.custody.contract import MASTERS, CustodyContract

PASSPHRASE = "correct horse battery staple"
SHARED = bytes(range(100, 132))


def fill(custody, holder, algorithms, without=()):
    for spec, key in MASTERS.values():
        if spec.algorithm in algorithms and spec.key_id not in without:
            custody.import_key(spec, key, KeyPolicy(custody=holder))
    return custody


class TestSoftware(CustodyContract):
    @pytest.fixture
    def custody(self, tmp_path):
        with SoftwareCustody.create(tmp_path, PASSPHRASE, test=True, scrypt_n=16) as store:
            for spec, key in MASTERS.values():
                store.import_key(spec, key)
            yield store

    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda _: SoftwareCustody.open(tmp_path, PASSPHRASE, mode="test")


class TestSealedUnderShares(CustodyContract):
    @pytest.fixture
    def custody(self, tmp_path):
        with SealedCustody.create(tmp_path, RebuiltKey(SecretBytes(SHARED)), test=True) as store:
            yield fill(store, "sealed", self.algorithms)

    @pytest.fixture
    def reopen(self, tmp_path):
        def reopened(_):
            again = SealedCustody.open(tmp_path, mode="test")
            again.unseal(RebuiltKey(SecretBytes(SHARED)))
            return again

        return reopened


class TestSealedUnderToken(CustodyContract):
    @pytest.fixture
    def custody(self, token, tmp_path):
        with SealedCustody.create(tmp_path, TokenSealer(token.session), test=True) as store:
            yield fill(store, "sealed", self.algorithms)

    @pytest.fixture
    def reopen(self, token, tmp_path):
        def reopened(_):
            again = SealedCustody.open(tmp_path, mode="test")
            again.unseal(TokenSealer(token.session))
            return again

        return reopened


class TestTokenHostClear(CustodyContract):
    algorithms = ("3des", "aes")

    @pytest.fixture
    def custody(self, token):
        return fill(token, "host-clear", self.algorithms)

    @pytest.fixture
    def reopen(self, rig):
        return lambda _: rig.open()


class TestTokenOnly(CustodyContract):
    algorithms = ("3des", "aes")
    derives_clear = False
    without = ("kek.3des",)

    def schemes(self, algorithm):
        return ("aes-kw", "cbc", "ecb") if algorithm == "aes" else ("aes-kw",)

    @pytest.fixture
    def custody(self, token):
        return fill(token, "token-only", self.algorithms, self.without)

    @pytest.fixture
    def reopen(self, rig):
        return lambda _: rig.open()


class TestComposite(CustodyContract):
    """3DES and AES masters in the token, SM4 masters and the KEKs for them sealed under the token: the demo's arrangement."""

    @pytest.fixture
    def custody(self, token, tmp_path):
        fill(token, "host-clear", ("3des", "aes"))
        with SealedCustody.create(tmp_path, TokenSealer(token.session), test=True) as sealed:
            yield _Settable([token, fill(sealed, "sealed", ("sm4",))])

    @pytest.fixture
    def reopen(self, rig):
        return lambda _: rig.open()


class _Settable(CompositeCustody):
    """States change in the custody that has the key; the contract changes one."""

    def set_state(self, key_id, version, state):
        return self._part(key_id).set_state(key_id, version, state)
