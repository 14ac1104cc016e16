"""Every method of every service in proto/ is answered by code of ours: the generated bases only raise NotImplementedError."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

PROTOS = sorted(Path(__file__).parents[2].glob("proto/citycard/v1/*.proto"))
ROOMS = [importlib.import_module(f"engine.rpc.{name}") for name in ("jobs", "keys", "metrics", "stations", "stock")]


def services():
    for proto in PROTOS:
        descriptors = importlib.import_module(f"citycard.v1.{proto.stem}_pb2").DESCRIPTOR.services_by_name
        bases = importlib.import_module(f"citycard.v1.{proto.stem}_pb2_grpc")
        for name, descriptor in descriptors.items():
            yield pytest.param(getattr(bases, f"{name}Servicer"), [method.name for method in descriptor.methods], id=name)


FOUND = list(services())


def test_every_proto_file_has_a_service():
    assert len(FOUND) >= len(PROTOS) >= 5


@pytest.mark.parametrize(("base", "methods"), FOUND)
def test_no_method_is_left_to_the_generated_base(base, methods):
    (ours,) = {
        found
        for room in ROOMS
        for found in vars(room).values()
        if isinstance(found, type) and issubclass(found, base) and found is not base
    }
    assert methods
    left = [name for name in methods if getattr(ours, name) is getattr(base, name)]
    assert not left, f"{ours.__name__} does not answer {', '.join(left)}"
