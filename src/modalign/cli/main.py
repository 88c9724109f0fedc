"""The command ``modalign``: finds the verb, runs it, and turns errors into one line and an exit status.

Exit status: 0 done and trusted, 1 unexpected, 2 usage or bad input, 3 result not trusted, 130 interrupted.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import MappingProxyType

from modalign import __version__
from modalign.errors import ModalignError

VERBS = MappingProxyType(
    {
        "demo": "See it happen: train on made-up tissue and align unseen pairs. Needs no data.",
        "train": "Learn a shared representation from aligned pairs (also: train features, train deform).",
        "encode": "Turn an image into its representation.",
        "register": "Find the transform between two images, and apply it.",
        "batch": "Register many pairs that a table lists, on one machine or many.",
        "apply": "Apply a transform to an image, a label map or points.",
        "evaluate": "Measure a transform against a known one or against landmarks.",
        "index": "Make collections of images searchable, in any modality.",
        "search": "Find the image, and the place in it, that shows what a query shows.",
        "data": "List public image sets, and get one.",
        "benchmark": "Measure methods on many pairs with known truth, as a plan tells.",
        "info": "Tell what an image, a model or a transform is.",
    }
)


def usage() -> str:
    """The help of the command itself; imports nothing, so that it comes at once."""
    verbs = "\n".join(f"  {name:<10}{summary}" for name, summary in VERBS.items())
    return (
        f"modalign {__version__}: align images of different modalities.\n\n"
        f"usage: modalign VERB [options]      modalign VERB --help tells about one verb\n\n{verbs}\n\n"
        "  --debug   with any verb: show where an error came from\n"
        "  --version show the version\n\nNew here? Type: modalign demo"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    if arguments[0] not in VERBS:
        _complain(f"unknown verb {arguments[0]!r}; known are {', '.join(VERBS)}")
        return 2
    return _run(arguments[0], arguments[1:], debug=debug)


def _run(verb: str, arguments: Sequence[str], *, debug: bool) -> int:
    try:
        status: int = import_module(f"modalign.cli.{verb}").run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`; nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except SystemExit as leaving:  # argument parsing: 0 after --help, 2 after a usage error
        return leaving.code if isinstance(leaving.code, int) else 2
    except ModalignError as error:
        return _failed(error, " ".join(str(error).split()), 2, debug=debug)
    except MemoryError as error:
        return _failed(error, "not enough memory for images of this size", 2, debug=debug)
    except Exception as error:  # the last resort, so that a user never sees a traceback unasked
        message = f"unexpected {type(error).__name__}: {error} (add --debug to see where, and report it)"
        return _failed(error, message, 1, debug=debug)
    return status


def _failed(error: BaseException, message: str, status: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    _complain(message)
    return status


def _complain(message: str) -> None:
    print(f"modalign: {message}", file=sys.stderr)
