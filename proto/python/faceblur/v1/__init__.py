"""Generated from proto/faceblur/v1 by `make generate`."""
