"""``gan-compare``: a table of runs with means over seeds, and tests of the differences."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from gan_cli.app import entry
from gan_cli.comparing import text
from gan_cli.comparing.gather import gather
from gan_cli.comparing.groups import Question, compare, kept_apart
from gan_cli.comparing.records import Comparison
from gan_cli.system.errors import ConfigError, GanError, NotFoundError, OutputError, failing_as
from gan_cli.system.files import write_output
from gan_cli.system.version import version

NAME = "gan-compare"
DEFAULT_WIDTH = 120  # characters of a line if the output is not a terminal
HINT = "more: --html FILE for a page with curves and pictures, --csv, --json, --markdown, --commands; --help lists all"
EXAMPLES = """\
  gan-compare outputs/sweep-...                    a sweep: a row for each setting, mean ± std over seeds
  gan-compare outputs --sort kid                   all runs below a folder
  gan-compare outputs/a outputs/b --at 640000      at equally many images
  gan-compare outputs/sweep-... --html page.html   one page with curves and sample grids
"""
PRINTED: dict[str, Callable[[list[Comparison]], str]] = {
    "csv": text.as_csv, "json": text.as_json, "markdown": text.markdown, "commands": text.commands,
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, "command line", f"See {NAME} --help")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = _Parser(
        prog=NAME, description="Compare runs: means over seeds, and whether they support the differences.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    options.add_argument("--version", action="version", version=version())
    options.add_argument("runs", nargs="+", metavar="RUNS", help="directories of runs or sweeps, or folders with runs below")
    options.add_argument("--sort", default="", metavar="METRIC", help="column to sort by, best first; default: the first one")
    options.add_argument("--at", default="last", metavar="last|best|IMAGES", help="evaluation that counts; default: last")
    options.add_argument("--protocol", default="", metavar="ID", help="protocol that counts; default: one of all groups")
    options.add_argument("--unfinished", action="store_true", help="also count runs that are not complete")
    options.add_argument("--strict", action="store_true", help="exit with 2 if the runs have several data sets or protocols")
    options.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options.add_argument("--csv", metavar="FILE", help="a row for each run; - prints it instead of the table")
    options.add_argument("--json", metavar="FILE", help="all data of the table; - prints it instead of the table")
    options.add_argument("--html", metavar="FILE", help="one page with curves and pictures; needs no network")
    options.add_argument("--tensorboard", nargs="?", const="", help=argparse.SUPPRESS)  # refused: a former option
    options.add_argument("--commands", action="store_true", help="print the commands that repeat each run")
    return options


def app(arguments: Sequence[str]) -> int:
    """Compare the runs of the command line, write files, print, and return the exit code.

    Raises:
        GanError: a wrong argument, no run, or a file that cannot be written. Files are written atomically.
    """
    args = parser().parse_intermixed_args(arguments)
    if args.tensorboard is not None:
        todo = f"TensorBoard reads the runs themselves: tensorboard --logdir {shlex.quote(args.runs[0])}"
        raise ConfigError("gan-compare writes no event files", "--tensorboard", todo)
    printed = [name for name in ("csv", "json") if getattr(args, name) == "-"]
    printed += [name for name in ("markdown", "commands") if getattr(args, name)]
    if len(printed) > 1:
        flags = ", ".join(f"--{name}" for name in printed)
        raise ConfigError("only one of these can be printed", flags, "Choose one, or name files")
    if "" in (args.csv, args.json, args.html):
        raise ConfigError("a file name is needed", "--csv, --json or --html", "Name a file, or omit the option")
    question = Question(_at(args.at), args.sort, args.unfinished, args.protocol)
    comparisons = compare(*gather([Path(path).expanduser() for path in args.runs]), question)
    written = _write(args, comparisons)
    if printed:
        _print(text.plain(PRINTED[printed[0]](comparisons).rstrip("\n"), keep="\n"))
    else:
        width, encoding = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns, (sys.stdout.encoding or "ascii").lower()
        _print(text.report(comparisons, width, encoding.startswith("utf")))
        _print("\n" + (f"written: {', '.join(written)}" if written else HINT))
    if args.strict and kept_apart(comparisons):
        raise ConfigError("the runs differ in data or protocol", "--strict", "See the notes")
    return 0


def _at(value: str) -> str:
    if value in ("last", "best"):
        return value
    if value.isascii() and value.isdecimal() and len(value) < 16:
        return str(int(value))
    raise ConfigError(f"{value[:60]!r} is not an evaluation", "--at", "Give last, best, or a number of images")


def _print(content: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(content.encode(encoding, "backslashreplace").decode(encoding))


def _write(args: argparse.Namespace, comparisons: list[Comparison]) -> list[str]:
    """Write the requested files and return their names."""
    written = []
    for name in ("csv", "json"):
        target = getattr(args, name)
        if target not in (None, "-"):
            path = Path(target).expanduser()
            with failing_as(OutputError, "the file cannot be written", str(path), f"Give --{name} another FILE"):
                path.parent.mkdir(parents=True, exist_ok=True)
                # File names may contain surrogates, which UTF-8 cannot encode.
                write_output(path, PRINTED[name](comparisons).encode("utf-8", "backslashreplace"))
            written.append(str(path))
    if args.html is not None:
        from gan_cli.comparing import page

        page.write(comparisons, Path(args.html).expanduser())
        written.append(args.html)
    return written


def main() -> NoReturn:
    """Console script."""
    entry.open_standard_streams()
    try:
        with failing_as(NotFoundError, "it cannot be read", "", "Check it"):
            os.getcwd()
            code = app(sys.argv[1:])
            sys.stdout.flush()
    except BrokenPipeError:  # gan-compare ... | head
        entry.forget(sys.stdout)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except GanError as error:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        entry.say(NAME, error)
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
