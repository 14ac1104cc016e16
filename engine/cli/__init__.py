"""The `citycard` command. Each module holds one group of commands; nothing here decides anything about cards or keys."""

import os

# gRPC's own lines on stderr say nothing that our errors do not say better; it reads this once, when it is imported
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
