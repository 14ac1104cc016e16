"""The `citycard` command. Each module holds one group of commands; nothing here decides anything about cards or keys."""

import os
import sys

# gRPC's own lines on stderr say nothing that our errors do not say better; it reads this once, when it is imported
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# its newer listener hands every message through more threads than the older one: a third more of the server's time for a station's messages
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")

# numpy's linear algebra is used nowhere here, and would start a thread for each core
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

try:
    import cext  # noqa: F401 - everything below needs it, and here its refusal can still become one line
except ImportError as error:
    from engine.cli import output

    if error.name != "cext._kernels":
        raise
    output.fail("SELF_TEST", f"self-test: {error.msg}", as_json="--json" in sys.argv)
    raise SystemExit(1) from None
