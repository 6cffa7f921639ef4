"""How every command of this project starts and how it reports bad input."""

import sys
from collections.abc import Callable, Sequence

from absl import app, logging


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`; bad input ends it with one line and exit status 1.

    Bad input is what `main` raises as `ValueError` (values) or `OSError` (paths, full disks).
    `--verbosity=1` shows the traceback as well.
    """

    def checked_main(argv: Sequence[str]) -> None:
        try:
            if len(argv) > 1:
                raise ValueError(
                    f"Unexpected argument: {argv[1]}. Flags are written --name=value; "
                    "--help lists them."
                )
            main()
        except (ValueError, OSError) as error:
            logging.debug("Traceback:", exc_info=True)
            sys.exit(f"error: {' '.join(str(error).split())}")

    app.run(checked_main)
