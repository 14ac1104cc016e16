import pytest

from engine.virtual.factory import make_blank
from tests.pcsc_rig import pcsc_rig
from tests.virtual.card_driver import LOT, SERIAL, Host, transport_keys

__all__ = ["pcsc_rig"]


@pytest.fixture
def chip(tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=SERIAL)
    chip.power_on()
    yield chip
    chip.power_off()


@pytest.fixture
def host(chip):
    host = Host(chip.transmit, transport_keys(chip.chip_id))
    host.open(0x33)
    return host
