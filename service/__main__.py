"""`python -m service`, and the script that is installed: the command, from its first import on."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command; Ctrl-C while its parts are still being imported ends it without a traceback."""
    try:
        from service.cli import main as command  # noqa: PLC0415  # imported where an interruption is caught

        command()
    except KeyboardInterrupt:
        sys.exit(0 if sys.argv[1:2] == ["demo"] and "--exit" not in sys.argv else 130)


if __name__ == "__main__":
    main()
