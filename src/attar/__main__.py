"""``python -m attar`` is ``attar``."""

from attar.apps.cli import main

main()
