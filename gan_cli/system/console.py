"""What a command says: plain lines on stderr, and progress bars where nobody else draws."""

from __future__ import annotations

import contextlib
import logging
import sys

from gan_cli.system import signals

NOTICE = 25  # level of what a job of a sweep says even where several share a console; train.log has the rest
CLEAR = "\r\x1b[J"  # on a terminal: from the line of the first bar on


class _Console(logging.Handler):
    """Plain lines on stderr that do not break a progress bar."""

    job = ""  # of a sweep whose jobs share this console

    def emit(self, record: logging.LogRecord) -> None:
        write(self.format(record))


_handler = _Console()


def setup(level: int, job: str = "") -> None:
    """Show the log of gan_cli from this level on. ``job``: the name of one that shares the console with others, else ""."""
    logger = logging.getLogger("gan_cli")
    _handler.job = job
    _handler.setLevel(NOTICE if job else logging.NOTSET)
    if not logger.handlers:
        logger.addHandler(_handler)
        logger.setLevel(level)
        logger.propagate = False


def write(text: str) -> None:
    """A line, after the name of the job where several share the console."""
    with contextlib.suppress(OSError):  # nobody listens any more; train.log has it
        if _handler.job:
            clear = CLEAR if sys.stderr.isatty() else ""  # the process that sweeps draws below
            print(f"{clear}{_handler.job}: {text}", file=sys.stderr, flush=True)
        elif "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def may_draw() -> bool:
    """Whether stderr is a terminal, and the jobs of a sweep do not share it."""
    return sys.stderr.isatty() and not signals.is_elsewhere()
