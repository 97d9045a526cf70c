"""`python -m faceblur_cli`, for where the `faceblur` script is not on the path."""

import sys

from .main import main

sys.exit(main())
