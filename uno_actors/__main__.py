"""``python -m uno_actors`` is the command ``uno-actors``."""

from uno_actors.cli.app import main

if __name__ == "__main__":
    main()
