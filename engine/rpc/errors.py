"""The one table from the error tree to gRPC status codes, and the handler that applies it.

The stable reason travels as trailing metadata `citycard-reason`; details carry the message for people. Anything outside the tree
becomes INTERNAL with reason INTERNAL and no text of its own: an unknown error's text might hold what must not leave.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import grpc
import structlog

from keys import errors

log = structlog.get_logger("rpc")

Service = TypeVar("Service")
Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]

REASON_KEY: Final = "citycard-reason"

CODES: Final[dict[type[errors.CitycardError], grpc.StatusCode]] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.Precondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Denied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Corrupt: grpc.StatusCode.DATA_LOSS,
    errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
}


def status_code(error: errors.CitycardError) -> grpc.StatusCode:
    """The status code of the error's coarse kind."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), grpc.StatusCode.INTERNAL)


async def _abort(context: Context, error: Exception) -> None:
    """Ends the call with the status that belongs to `error`; unexpected ones are logged by kind and place only."""
    if isinstance(error, errors.CitycardError):
        await context.abort(status_code(error), error.message, ((REASON_KEY, error.reason),))
    note_unexpected(error)
    text = f"the server met an unexpected {type(error).__name__}; its log says where"
    await context.abort(grpc.StatusCode.INTERNAL, text, ((REASON_KEY, "INTERNAL"),))


def note_unexpected(error: BaseException) -> None:
    """Logs kind and place of an error outside the tree; never its text, which might hold what must not leave."""
    log.error("unexpected error", kind=type(error).__name__, at=_place(error))


@asynccontextmanager
async def answering(context: Context) -> AsyncIterator[None]:
    """For streaming handlers: whatever the body raises becomes a status."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # noqa: BLE001 - the edge of the process: nothing passes it unmapped
        await _abort(context, error)


def answered(
    handler: Callable[[Service, Request, Context], Awaitable[Response]],
) -> Callable[[Service, Request, Context], Awaitable[Response]]:
    """For handlers that return one response: whatever they raise becomes a status."""

    @functools.wraps(handler)
    async def wrapper(service: Service, request: Request, context: Context) -> Response:
        try:
            return await handler(service, request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _abort(context, error)
            raise  # abort never returns; this says so to the type checker

    return wrapper


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Client side: the stable reason of a failed call, or the status code's name when the server gave none."""
    for key, value in error.trailing_metadata() or ():
        if key == REASON_KEY:
            return value.decode() if isinstance(value, bytes) else str(value)
    return error.code().name
