"""gRPC services over the rooms of the engine, and the only importer of the wire contract in the server."""
