"""``python -m labelloop`` is the same program as ``labelloop``."""

from labelloop.cli.app import main

if __name__ == "__main__":
    main()
