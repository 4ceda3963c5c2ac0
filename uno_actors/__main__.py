"""``python -m uno_actors`` is the command ``uno-actors``."""

from uno_actors.cli.start import main

if __name__ == "__main__":
    main()
