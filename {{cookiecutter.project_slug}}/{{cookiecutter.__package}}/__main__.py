"""What `python -m` runs on this package: see `command_line.py`."""

import sys

try:
    from .command_line import main

    main()
except KeyboardInterrupt:
    sys.exit(130)
