"""The `faceblur` command."""
