"""``python -m guidon`` is the command ``guidon``."""

from guidon.app.cli import main

if __name__ == "__main__":
    main()
