"""The client side of the wire for commands: one channel per command, a deadline on every call, errors as CitycardError."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import grpc

from engine.rpc.errors import CODES, reason_of
from engine.rpc.local import check_bind
from keys.errors import CitycardError, InvalidInput, Unavailable

T = TypeVar("T")

DEFAULT_ADDRESS: Final = "127.0.0.1:7443"
DEADLINE_S: Final = 30.0
_KINDS: Final = {code: kind for kind, code in CODES.items()}


def default_address() -> str:
    """The server's address when --server is not given: CITYCARD_SERVER, else loopback port 7443."""
    return os.environ.get("CITYCARD_SERVER", DEFAULT_ADDRESS)


def checked_address(address: str) -> str:
    """HOST:PORT on loopback: orders travel in clear until mutual TLS exists. InvalidInput SERVER_ADDRESS."""
    try:
        return check_bind(address)
    except InvalidInput as error:
        raise InvalidInput("SERVER_ADDRESS", f"--server {error.message}") from None


def translated(error: grpc.aio.AioRpcError, address: str) -> CitycardError:
    """The error a failed call stands for, as the tree the server threw it from."""
    reason = reason_of(error)
    if error.code() is grpc.StatusCode.UNAVAILABLE and reason == "UNAVAILABLE":
        return Unavailable("SERVER_UNREACHABLE", f"no citycard server answers at {address}: is `citycard serve` running there?")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable("SERVER_SLOW", f"the server at {address} did not answer within {DEADLINE_S:.0f} seconds")
    kind = _KINDS.get(error.code(), CitycardError)
    return kind(reason, error.details() or error.code().name)


def run(address: str, work: Callable[[grpc.aio.Channel], Coroutine[Any, Any, T]]) -> T:
    """Runs `work` with a channel to `address`; raises CitycardError for every failed call."""

    async def inside() -> T:
        async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", 8 << 20)]) as channel:
            return await work(channel)

    checked_address(address)
    try:
        return asyncio.run(inside())
    except grpc.aio.AioRpcError as error:
        raise translated(error, address) from None


def ask(address: str, call: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
    """One unary call."""

    async def once(channel: grpc.aio.Channel) -> T:
        return await call(channel)

    return run(address, once)
