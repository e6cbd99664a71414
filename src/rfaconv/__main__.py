"""`python -m rfaconv` is `rfaconv`, e.g. for torchrun."""

from rfaconv.cli import main

if __name__ == "__main__":
    main()
