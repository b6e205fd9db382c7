"""Microsoft's worker runtime (`azure_functions_runtime`), given the host's own messages for its protobuf ones.

Only the worker process imports this module: it brings in azure.functions.
"""

from __future__ import annotations

import importlib
import pathlib
import traceback
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import azure_functions_runtime as runtime  # type: ignore[import-untyped]  # it ships no types

from sandbox.host.messages import (
    Answer,
    FunctionMetadata,
    Initialized,
    NotInitialized,
    RpcException,
    RpcHttp,
    RpcHttpCookie,
    TypedData,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.host.messages import Initialize, Invoke

SCRIPT_FILE_SETTING = "PYTHON_SCRIPT_FILE_NAME"


class _StatusResult(SimpleNamespace):
    """The outcome of a request, as the runtime reports it."""

    Success = "success"
    Failure = "failure"


class _BindingInfo(SimpleNamespace):
    """A binding's type and direction. The numbers are those of the RPC protocol, which azure.functions uses as well."""

    undefined = None
    in_, out, inout = 0, 1, 2


class _Cookie(RpcHttpCookie):
    """A cookie message with the names of its `SameSite` values."""

    class SameSite:
        """The values of `same_site`; None stands for the attribute's absence."""

        Lax, Strict, ExplicitNone = "lax", "strict", "none"


# "None" is a keyword in Python, so the protocol's name for the absent attribute can only be set like this.
setattr(_Cookie.SameSite, "None", None)


def _plain_value(*, value: object) -> object:
    """Unwrap a "nullable" message of the RPC protocol: here the value itself, or None."""
    return value


def _seconds(*, seconds: int) -> int:
    """Unwrap a protobuf timestamp: seconds since the epoch."""
    return seconds


PROTOS = SimpleNamespace(
    BindingInfo=_BindingInfo,
    FunctionMetadataResponse=SimpleNamespace,
    InvocationResponse=SimpleNamespace,
    NullableBool=_plain_value,
    NullableDouble=_plain_value,
    NullableString=_plain_value,
    NullableTimestamp=_plain_value,
    RpcException=RpcException,
    RpcFunctionMetadata=SimpleNamespace,
    RpcHttp=RpcHttp,
    RpcHttpCookie=_Cookie,
    RpcRetryOptions=SimpleNamespace,
    StatusResult=_StatusResult,
    Timestamp=_seconds,
    TypedData=TypedData,
    WorkerInitResponse=SimpleNamespace,
    WorkerMetadata=SimpleNamespace,
)


def _request(**message: object) -> SimpleNamespace:
    """Return a request as the runtime reads it: the message under its name, and the properties of the worker."""
    return SimpleNamespace(request=SimpleNamespace(**message), properties={"host": "127.0.0.1", "protos": PROTOS})


@dataclass(frozen=True, slots=True)
class _Parameter:
    """An input of an invocation, as the runtime reads it."""

    name: str
    data: TypedData

    def WhichOneof(self, _group: str) -> str:  # noqa: N802 - the name is protobuf's, the runtime calls it
        """Return that the input is given by value."""
        return "data"


def _origin(error: BaseException, directory: pathlib.Path) -> str:
    """Return the file and line where an import failed: the innermost of the app, else the innermost."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if pathlib.Path(frame.filename).is_relative_to(directory)]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _import_app(script: pathlib.Path) -> NotInitialized | None:
    """Import the app, so that a failure is known with its exception; the runtime then finds it imported."""
    if not script.is_file():
        return NotInitialized(problem=f"there is no {script.name} in {script.parent}")
    try:
        importlib.import_module(script.stem)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever the app raises while it is imported (SystemExit too)
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        problem = f"the app cannot be imported: {type(error).__name__}: {text} ({_origin(error, script.parent)})"
        return NotInitialized(problem=problem, details=traceback.format_exc())
    return None


async def initialize(request: Initialize, environment: Mapping[str, str]) -> Initialized | NotInitialized:
    """Import the app in the request's directory and index its functions."""
    script = pathlib.Path(request.directory) / environment.get(SCRIPT_FILE_SETTING, "function_app.py")
    failure = _import_app(script)
    if failure is not None:
        return failure
    runtime.start_threadpool_executor()
    init = SimpleNamespace(capabilities={}, function_app_directory=request.directory)
    response = await runtime.worker_init_request(_request(worker_init_request=init))
    if response.result.status == _StatusResult.Failure:
        exception = response.result.exception
        return NotInitialized(problem=f"the app cannot be indexed: {exception.message}", details=exception.stack_trace)
    if "HttpUri" in response.capabilities:
        return NotInitialized(
            problem="the app uses HTTP streaming (azurefunctions.extensions.http), which is not supported"
        )
    listing = await runtime.functions_metadata_request(_request())
    functions = [
        FunctionMetadata(
            name=each.name,
            function_id=each.function_id,
            script_file=each.script_file or script.name,
            raw_bindings=list(each.raw_bindings),
        )
        for each in listing.function_metadata_results or ()
    ]
    if not functions:
        return NotInitialized(problem=f"{script.name} declares no functions")
    return Initialized(functions=functions)


async def invoke(request: Invoke) -> Answer:
    """Run a function; an Exception becomes the answer's `exception`, any other BaseException leaves here."""
    invocation = SimpleNamespace(
        invocation_id=request.invocation_id,
        function_id=request.function_id,
        input_data=[_Parameter(name, data) for name, data in request.inputs.items()],
        trigger_metadata={},
        trace_context=SimpleNamespace(
            trace_parent=request.trace_context.trace_parent,
            trace_state=request.trace_context.trace_state,
            attributes={},
        ),
        retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
    )
    response = await runtime.invocation_request(_request(invocation_request=invocation))
    if response.result.status == _StatusResult.Failure:
        return Answer(invocation_id=request.invocation_id, exception=response.result.exception)
    return Answer(invocation_id=request.invocation_id, return_value=response.return_value)
