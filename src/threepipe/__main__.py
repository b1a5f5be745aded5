"""`python -m threepipe`, for where the command `threepipe` is not on the path."""

from threepipe.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
