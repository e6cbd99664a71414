"""The command `rfaconv`: one command a file, no logic of its own."""

from __future__ import annotations

import sys

from rfaconv.errors import OutputError, UserError, require


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 2, output that cannot be written exit code 1."""
    try:
        require("rfaconv.cli.app", "classify").app()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except OutputError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
