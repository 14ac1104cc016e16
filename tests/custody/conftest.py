"""Real SoftHSM tokens, each test with a token directory of its own."""

import os
import shutil
from pathlib import Path

import pytest

from keys.custody.token import TokenConfig, TokenCustody, initialize
from keys.secrets import SecretBytes

MODULE = next(
    path
    for path in map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"))
    if path.exists()
)
LABEL = "city"
SO_PIN = b"87654321"
PIN = b"246810"


class Rig:
    """One SoftHSM installation: its directory of tokens, and the ways to disturb it."""

    def __init__(self, directory: Path, module: Path = MODULE) -> None:
        self.directory = directory
        self.tokens = directory / "tokens"
        self.tokens.mkdir(parents=True, exist_ok=True)
        self.conf = directory / "softhsm2.conf"
        self.conf.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.config = TokenConfig(module, LABEL)

    def initialize(self) -> str:
        return initialize(self.config, SecretBytes(SO_PIN), SecretBytes(PIN))

    def create(self, **options) -> TokenCustody:
        self.initialize()
        return TokenCustody.create(self.config, SecretBytes(PIN), test=True, **options)

    def open(self, pin: bytes = PIN, **options) -> TokenCustody:
        return TokenCustody.open(self.config, SecretBytes(pin), **({"mode": "test"} | options))

    def copy_of_files(self) -> Path:
        place = self.directory / "copy"
        shutil.copytree(self.tokens, place)
        return place


@pytest.fixture
def rig(tmp_path, monkeypatch):
    made = Rig(tmp_path / "softhsm")
    # SoftHSM reads it when it is initialized, which opening a custody does
    monkeypatch.setitem(os.environ, "SOFTHSM2_CONF", str(made.conf))
    return made


@pytest.fixture
def token(rig):
    with rig.create() as custody:
        yield custody
