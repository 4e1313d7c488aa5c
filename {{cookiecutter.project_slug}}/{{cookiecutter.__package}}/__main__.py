"""`python -m` on this package runs ADK's command line with this project's sessions and own commands."""

import sys

try:
    from .sessions.command_line import main

    main()
except KeyboardInterrupt:
    sys.exit(130)
