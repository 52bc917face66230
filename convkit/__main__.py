"""`python -m convkit`, the same as the command `convkit`."""

from convkit.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
