"""``python -m portoser`` is the same as the ``portoser`` command."""

from portoser.cli import main

if __name__ == "__main__":
    main()
