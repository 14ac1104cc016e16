"""The whole plant with cards over SCP02: server and stations as processes, blanks of the profile's own chip type."""

from __future__ import annotations

import json

from engine.cli.demo import run_demo
from engine.orders.synthetic import order_file
from engine.virtual.birth import CHIP_TYPE_SCP02
from engine.virtual.factory import open_chip


def test_cards_over_scp02_are_made_verified_and_reconciled(tmp_path):
    orders = tmp_path / "orders.csv"
    orders.write_bytes(b"".join(order_file(6)))
    place = tmp_path / "plant"
    result = run_demo(orders, 2, "zhengzhou-citizen-card-scp02", place, pcsc=False, quiet=True, time_limit=120)
    assert (result["state"], result["good"], result["scrapped"], result["blanks_rejected"]) == ("COMPLETE", 6, 0, 0)
    assert result["reconciled"], result["differences"]
    report = json.loads((place / "report.json").read_text())
    assert report["counts"]["good"] == 6
    made = [line.split(",") for line in (place / "results.csv").read_text().splitlines()]
    at = made[0].index("chip_id")
    for row in made[1:]:
        # a good chip is SECURED, does SCP02, and knows the issuer's key version only
        found = [path for path in place.glob("stations/*/hopper/chips") if (path / f"{row[at]}.nvm").exists()]
        chip = open_chip(found[0], row[at])
        assert chip.power_on()[4:9] == CHIP_TYPE_SCP02
        assert chip.key_versions == [0x31]
        assert chip.transmit(bytes.fromhex("8050310008" + "11" * 8 + "00"))[11] == 0x02
        chip.power_off()
