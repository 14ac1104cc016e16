"""What the maker puts into a blank: identity, transport keys diversified from the KMC, applet instances.

The static transport keys descend from the KMC by the KDD, for k = 01 ENC, 02 MAC, 03 DEK. Chips with SCP03 have gp-kdf3: SP 800-108
counter mode with AES-CMAC, i || 00 00 00 k || 00 || KDD. Chips with SCP02 have those of EMV CPS: 3DES over the last six bytes of the
KDD || F0 k and the same || 0F k.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from engine.virtual.crypto import TDES, cmac, ecb
from engine.virtual.faults import Faults
from engine.virtual.nvm import Nvm
from engine.virtual.scp02_card import Scp02
from engine.virtual.scp03_card import Scp03
from engine.virtual.security_domain import INITIALIZED, SECURED

# GlobalPlatform's well-known test key. A chip made with it is a TEST chip and nothing else.
TEST_KMC = bytes.fromhex("404142434445464748494A4B4C4D4E4F")
ISD_AID = bytes.fromhex("A000000151000000")
CHIP_TYPE = b"ZZC01"
# The same chip with an operating system that does SCP02 instead of SCP03.
CHIP_TYPE_SCP02 = b"ZZC02"
TRANSPORT_KVN = 0x30
MAX_FAILURES = 10
# Kind and instance AID, in the order in which SELECT looks through them.
APPLETS: tuple[tuple[str, bytes], ...] = (
    ("capp", bytes.fromhex("7378312E73682EC9E7BBE1B1A3D5CF")),  # social security, "sx1.sh." and its Chinese name in GBK
    ("finance", bytes.fromhex("A000000333010101")),
    ("transport", bytes.fromhex("A000000632010105")),
    ("capp", bytes.fromhex("F04845414C544831")),  # health
    ("capp", bytes.fromhex("F05A5A4349545931")),  # city
)
_OTHER_ISSUER_KVN = 0x20
_PERSONALIZED = 1


def kdf3(kmc: bytes, kdd: bytes) -> bytes:
    """ENC || MAC || DEK, 48 bytes, of the chip with this KDD (10 bytes)."""
    return b"".join(cmac(kmc, bytes((1, 0, 0, 0, k, 0)) + kdd) for k in (1, 2, 3))


def cps(kmc: bytes, kdd: bytes) -> bytes:
    """ENC || MAC || DEK, 48 bytes, of a chip with SCP02 (EMV CPS 4.1)."""
    six = kdd[-6:]
    return b"".join(ecb(TDES, kmc, six + bytes((0xF0, k)) + six + bytes((0x0F, k))) for k in (1, 2, 3))


@dataclass(frozen=True, slots=True)
class Birth:
    """One blank as it leaves the maker."""

    lot: bytes
    serial: bytes
    kmc: bytes = field(default=TEST_KMC, repr=False)
    chip_type: bytes = CHIP_TYPE
    isd_aid: bytes = ISD_AID
    kvn: int = TRANSPORT_KVN
    max_failures: int = MAX_FAILURES
    applets: tuple[tuple[str, bytes], ...] = APPLETS

    @property
    def kdd(self) -> bytes:
        return self.lot + self.serial

    @property
    def chip_id(self) -> str:
        return self.kdd.hex().upper()

    def write(self, nvm: Nvm, faults: Faults | None) -> None:
        """Fills an empty memory and makes it durable in one record."""
        given = faults or Faults()
        with_scp02 = self.chip_type == CHIP_TYPE_SCP02
        keys, kvn, state = (cps if with_scp02 else kdf3)(self.kmc, self.kdd), self.kvn, INITIALIZED
        personalized = {bytes.fromhex(aid) for aid in given.personalized_applets}
        if given.already_personalized:
            keys, kvn, state = bytes(byte ^ 0xA5 for byte in keys), _OTHER_ISSUER_KVN, SECURED
            personalized = {aid for _, aid in self.applets}
        nvm.put("lot", self.lot)
        nvm.put("serial", self.serial)
        nvm.put("chip_type", self.chip_type)
        nvm.put("isd.aid", self.isd_aid)
        nvm.put("isd.scp", Scp02.number if with_scp02 else Scp03.number)
        nvm.put("isd.state", state)
        nvm.put("isd.max_failures", self.max_failures)
        nvm.put("isd.kvns", bytes((kvn,)))
        nvm.put(f"isd.keys.{kvn:02X}", keys)
        nvm.put("applets", "".join(f"{kind}:{aid.hex()} " for kind, aid in self.applets).encode())
        nvm.put("faults", msgspec.json.encode(given))
        for _, aid in self.applets:
            if aid in personalized:
                nvm.put(f"{aid.hex()}:state", _PERSONALIZED)
        nvm.commit()


def applet_aids(nvm: Nvm) -> list[tuple[str, bytes]]:
    """Kind and instance AID of the chip's applets."""
    found = []
    for entry in (nvm.get_bytes("applets") or b"").decode().split():
        kind, _, aid = entry.partition(":")
        found.append((kind, bytes.fromhex(aid)))
    return found


def birth_faults(nvm: Nvm) -> Faults:
    """The faults the chip was made with."""
    return msgspec.json.decode(nvm.get_bytes("faults") or b"{}", type=Faults)
