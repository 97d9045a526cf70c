"""The data plane's server: pictures come in over gRPC, go through the engine, and leave with their faces obscured."""
