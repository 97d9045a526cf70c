"""The kinds of the group faceblur.io, one module per version."""
