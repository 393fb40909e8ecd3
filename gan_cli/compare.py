"""``gan-compare``: runs beside each other, means over seeds, and whether the differences are more than chance. No torch."""

from __future__ import annotations

import argparse
import contextlib
import os
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

NAME = "gan-compare"
WIDTH = 120  # where there is no terminal
MORE = "more: --html FILE for a page with curves and pictures, --csv, --json, --markdown, --commands; --help lists all"
EXAMPLES = """\
  gan-compare outputs/sweep-...                    a sweep: a row for each setting, mean +- std over seeds
  gan-compare outputs --sort kid                   all runs below a folder
  gan-compare outputs/a outputs/b --at 640000      at equally many images
  gan-compare outputs/sweep-... --html page.html   one page with curves and sample grids
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, "command line", f"See {NAME} --help")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(
        prog=NAME, description="Compare runs: means over seeds, and whether they support the differences.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    made.add_argument("runs", nargs="+", metavar="RUNS", help="run directories, sweep directories, or folders with runs below")
    made.add_argument("--sort", default="", metavar="METRIC", help="best first by this column; default: the first one")
    made.add_argument(
        "--at", default="last", metavar="last|best|IMAGES", help="which evaluation of each run counts; default: last"
    )
    made.add_argument("--protocol", default="", metavar="ID", help="only evaluations by this one; default: one that all share")
    made.add_argument("--unfinished", action="store_true", help="count runs that are not complete as far as they are")
    made.add_argument("--strict", action="store_true", help="exit with 2 where data sets or protocols must be kept apart")
    made.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    made.add_argument("--csv", metavar="FILE", help="a row for each run; - prints it instead of the table")
    made.add_argument("--json", metavar="FILE", help="everything of the table; - prints it instead of the table")
    made.add_argument("--html", metavar="FILE", help="one page that needs nothing else")
    made.add_argument("--tensorboard", metavar="DIR", help="a TensorBoard run for each group")
    made.add_argument("--commands", action="store_true", help="print what makes each run anew")
    return made


def app(arguments: Sequence[str]) -> int:
    """Read, compare, write files, print. Returns the exit code.

    Raises:
        GanError: anything foreseeable; no file is half-written then.
    """
    args = parser().parse_intermixed_args(arguments)
    question = Question(_at(args.at), args.sort, args.unfinished, args.protocol)
    printed = [name for name in ("csv", "json") if getattr(args, name) == "-"]
    printed += [name for name in ("markdown", "commands") if getattr(args, name)]
    if len(printed) > 1:
        raise ConfigError(
            "only one thing can be printed", ", ".join(f"--{name}" for name in printed), "Give files, or one of them"
        )
    if "" in (args.csv, args.json, args.html, args.tensorboard):
        raise ConfigError("a file name is needed", "--csv, --json, --html or --tensorboard", "Give one, or leave it out")
    comparisons = compare(*gather([Path(path).expanduser() for path in args.runs]), question)
    written = _write(args, comparisons)
    texts: dict[str, Callable[[], str]] = {
        "csv": lambda: "\n".join(text.plain(line) for line in text.as_csv(comparisons).rstrip("\n").split("\n")),
        "json": lambda: text.as_json(comparisons).rstrip("\n"),
        "markdown": lambda: text.markdown(comparisons),
        "commands": lambda: text.commands(comparisons),
    }
    if printed:
        _print(texts[printed[0]]())
    else:
        width, encoding = shutil.get_terminal_size((WIDTH, 24)).columns, (sys.stdout.encoding or "ascii").lower()
        _print(text.report(comparisons, width, encoding.startswith("utf")))
        _print("\n" + (f"written: {', '.join(written)}" if written else MORE))
    if args.strict and kept_apart(comparisons):
        raise ConfigError("not all of this can be compared", "--strict", "The notes say what differs")
    return 0


def _at(value: str) -> str:
    if value in ("last", "best"):
        return value
    if value.isascii() and value.isdecimal() and len(value) < 16:
        return str(int(value))
    raise ConfigError(f"{value[:60]!r} is no evaluation", "--at", "Give last, best, or a number of images")


def _print(what: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(what.encode(encoding, "backslashreplace").decode(encoding))


def _write(args: argparse.Namespace, comparisons: list[Comparison]) -> list[str]:
    """The files that are asked for; their names."""
    written = []
    for name, content in (("csv", text.as_csv), ("json", text.as_json)):
        target = getattr(args, name)
        if target not in (None, "-"):
            path = Path(target).expanduser()
            with failing_as(OutputError, "the file cannot be written", str(path), f"Give --{name} another FILE"):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_output(path, content(comparisons).encode("utf-8", "backslashreplace"))  # names of files may be no text
            written.append(str(path))
    if args.html is not None:
        from gan_cli.comparing import page

        page.write(comparisons, Path(args.html).expanduser())
        written.append(args.html)
    if args.tensorboard is not None:
        from gan_cli.comparing import board

        board.write(comparisons, Path(args.tensorboard).expanduser())
        written.append(f"{args.tensorboard} (tensorboard --logdir {args.tensorboard})")
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
