"""``python -m labelloop`` is the same program as ``labelloop``."""

import sys


def main() -> None:
    """The program; an interrupt while it still loads ends it as one later does."""
    try:
        from labelloop.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # as labelloop.cli.app has it, which may not be there yet


if __name__ == "__main__":
    main()
