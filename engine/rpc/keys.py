"""KeyService and CeremonyService: the wire in front of the key desk and of ceremony records."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import grpc
from citycard.v1 import keys_pb2 as pb
from citycard.v1.keys_pb2_grpc import CeremonyServiceServicer, KeyServiceServicer

from engine.production import ceremonies
from engine.production.keydesk import KeyDesk
from engine.rpc.errors import answered
from engine.rpc.unsealbox import UnsealBox

Context = grpc.aio.ServicerContext[Any, Any]


class KeyService(KeyServiceServicer):
    """See keys.proto."""

    def __init__(self, desk: KeyDesk) -> None:
        self._desk = desk
        self._box: Final = UnsealBox()

    @answered
    async def GetKeyStatus(self, request: pb.GetKeyStatusRequest, context: Context) -> pb.GetKeyStatusResponse:
        del request
        return pb.GetKeyStatusResponse(status_json=_json(self._desk.status()))

    @answered
    async def GetInventory(self, request: pb.GetInventoryRequest, context: Context) -> pb.GetInventoryResponse:
        del request
        return pb.GetInventoryResponse(keys_json=_json({"keys": await self._desk.inventory()}))

    @answered
    async def BeginUnseal(self, request: pb.BeginUnsealRequest, context: Context) -> pb.BeginUnsealResponse:
        del request
        return pb.BeginUnsealResponse(public_key=self._box.public_key())

    @answered
    async def Unseal(self, request: pb.UnsealRequest, context: Context) -> pb.UnsealResponse:
        secret, store_key = self._box.open(request.public_key, request.letter)
        await self._desk.unseal(secret, store_key, request.by)
        return pb.UnsealResponse()

    @answered
    async def Seal(self, request: pb.SealRequest, context: Context) -> pb.SealResponse:
        await self._desk.seal(request.by)
        return pb.SealResponse()

    @answered
    async def Zeroize(self, request: pb.ZeroizeRequest, context: Context) -> pb.ZeroizeResponse:
        await self._desk.zeroize(request.by, request.second)
        return pb.ZeroizeResponse()


class CeremonyService(CeremonyServiceServicer):
    """See keys.proto."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @answered
    async def ListCeremonies(self, request: pb.ListCeremoniesRequest, context: Context) -> pb.ListCeremoniesResponse:
        del request
        found = await asyncio.to_thread(ceremonies.list_all, self._directory)
        return pb.ListCeremoniesResponse(ceremonies_json=_json({"ceremonies": found}))

    @answered
    async def GetCeremony(self, request: pb.GetCeremonyRequest, context: Context) -> pb.GetCeremonyResponse:
        found = await asyncio.to_thread(ceremonies.look_at, self._directory, request.ceremony_id)
        return pb.GetCeremonyResponse(ceremony_json=_json(found))


def _json(value: Any) -> bytes:  # noqa: ANN401 - JSON is any shape
    return json.dumps(value, ensure_ascii=False).encode()
