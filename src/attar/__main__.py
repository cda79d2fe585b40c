"""``python -m attar`` is ``attar``."""

import sys

from attar.apps.cli import main

sys.exit(main())
