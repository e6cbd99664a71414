"""The command `rfaconv`: one command a file, no logic of its own."""

from __future__ import annotations

import sys

from rfaconv.errors import OutputError, UserError, require


def main() -> None:
    """Run the command line; one sentence for a user's mistake (exit code 2) and for a failed write (exit code 1)."""
    try:
        require("rfaconv.cli.app", "classify").app()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except OutputError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
