"""Output of a command on stderr: plain lines, and progress bars if no other process draws on the terminal."""

from __future__ import annotations

import contextlib
import logging
import sys

from gan_cli.system import signals

NOTICE = 25  # log level of lines that are shown even if several jobs share the console; train.log has the rest
SHARED = "shared"  # attribute of log records that the console shows once, though several jobs of a sweep log the same
ONLY_FILE = "only_file"  # attribute of log records that train.log has and the console does not show
CLEAR_BELOW = "\r\x1b[J"  # terminal code that clears everything from the current line on
shared_lines: set[str] = set()  # lines of SHARED records that this command has shown


class _Console(logging.Handler):
    """Log handler that writes plain lines to stderr without breaking a progress bar."""

    job = ""  # name of this job if the jobs of a sweep share the console

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        is_known = getattr(record, SHARED, False) and text in shared_lines
        if getattr(record, SHARED, False):
            shared_lines.add(text)
        if not is_known and not getattr(record, ONLY_FILE, False):
            write(text)


_handler = _Console()


def setup(level: int, job: str = "") -> None:
    """Show the log of gan_cli from this level on. ``job``: name of this job if jobs share the console, else ""."""
    logger = logging.getLogger("gan_cli")
    _handler.job = job
    _handler.setLevel(NOTICE if job else logging.NOTSET)
    if not logger.handlers:
        logger.addHandler(_handler)
        logger.setLevel(level)
        logger.propagate = False


def write(text: str) -> None:
    """Write a line, after the name of the job if jobs share the console."""
    with contextlib.suppress(OSError):  # stderr is closed; train.log has the line
        if _handler.job:
            clear = CLEAR_BELOW if sys.stderr.isatty() else ""  # bars of the sweeping process, which it draws again
            print(f"{clear}{_handler.job}: {text}", file=sys.stderr, flush=True)
        elif "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def may_draw() -> bool:
    """Return whether stderr is a terminal that the jobs of a sweep do not share."""
    return sys.stderr.isatty() and not signals.is_elsewhere()
