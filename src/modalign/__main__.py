"""``python -m modalign``: the same as the command ``modalign``."""

import sys

from modalign.cli.main import main

sys.exit(main())
