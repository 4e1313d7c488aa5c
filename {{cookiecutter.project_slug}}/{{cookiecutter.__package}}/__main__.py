"""What `python -m` runs on this package: see `command_line.py`."""

from .command_line import main

main()
