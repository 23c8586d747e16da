"""The command ``guidon``: one app, one place where errors become one message and an exit code.

Exit codes: 0 done; 2 the user has something to mend (wrong arguments, or any `GuidonError`); 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter

from guidon._version import __version__
from guidon.app import (
    cite_command,
    compare_command,
    convert_command,
    demo_command,
    finetune_command,
    info_command,
    lab_command,
    list_command,
    measure_command,
    nll_command,
    report_command,
    rules_command,
    sample_command,
    solvers_command,
    sweep_command,
    train_classifier_command,
    train_command,
    tune_command,
)
from guidon.errors import GuidonError, GuidonWarning

EXAMPLES = """Examples:

  guidon train digits                                    learn to draw digits
  guidon sample runs/digits --label 3 5 --n 8            eight 3s and eight 5s
  guidon info samples/0000-3.png                         how this was made
  guidon sample --like samples/0000-3.png -o again       the same, bit for bit
  guidon convert presets                                 weights of others
  guidon rules                                           ways to guide
  guidon rules apg                                       one of them in full
  guidon solvers                                         ways to sample
  guidon cite "cfg(4) | apg"                             BibTeX of a rule
  guidon measure runs/digits --reference digits          FID and the like
  guidon sweep sweeps/digits.yaml                        rules by weights
  guidon tune runs/digits --objective fid -r digits      the best of them
  guidon compare MODEL --rule "cfg(3)" "cfg(3) | apg"    which one is better
  guidon report sweeps/rules                             the page of a sweep
  guidon lab run two-modes                               an exact experiment
  guidon COMMAND --help                                  more about a command"""

app = App(
    name="guidon",
    version=__version__,
    help="Train conditional diffusion models, steer them, measure what the steering did.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)
app.meta.group_parameters = Group("Everywhere", sort_key=0)
app.command(train_command.train, help_epilogue=train_command.EXAMPLES)
app.command(
    train_classifier_command.train_classifier, name="train-classifier", help_epilogue=train_classifier_command.EXAMPLES
)
app.command(finetune_command.finetune, help_epilogue=finetune_command.EXAMPLES)
app.command(convert_command.convert)
app.command(sample_command.sample, help_epilogue=sample_command.EXAMPLES)
app.command(info_command.info, help_epilogue=info_command.EXAMPLES)
app.command(measure_command.measure, help_epilogue=measure_command.EXAMPLES)
app.command(nll_command.nll, help_epilogue=nll_command.EXAMPLES)
app.command(sweep_command.sweep, help_epilogue=sweep_command.EXAMPLES)
app.command(tune_command.tune, help_epilogue=tune_command.EXAMPLES)
app.command(compare_command.compare, help_epilogue=compare_command.EXAMPLES)
app.command(report_command.report, help_epilogue=report_command.EXAMPLES)
app.command(list_command.list_registered, name="list", help_epilogue=list_command.EXAMPLES)
app.command(rules_command.rules, help_epilogue=rules_command.EXAMPLES)
app.command(solvers_command.solvers, help_epilogue=solvers_command.EXAMPLES)
app.command(cite_command.cite, help_epilogue=cite_command.EXAMPLES)
app.command(lab_command.lab)
app.command(demo_command.demo, help_epilogue=demo_command.EXAMPLES)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    debug: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> int:
    """Run one command.

    Args:
        debug: show the traceback of an error.
    """
    try:
        app(tokens)
    except KeyboardInterrupt as interrupt:
        if debug:
            raise
        return _complain(f"interrupted; {interrupt}" if interrupt.args else "interrupted", code=130)
    except (GuidonError, CycloptsError) as error:
        if debug:
            raise
        return _complain(_message(error))
    except BrokenPipeError:
        raise
    except OSError as error:  # of a file that nobody foresaw
        if debug:
            raise
        what = error.filename or "a file"
        return _complain(f"{what}: {error.strerror or error}; check the path, its permissions and the free space")
    return 0


def run(tokens: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        with warnings.catch_warnings():
            others = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
                """Print what guidon warns of as a note, and all else as it is."""
                if issubclass(category, GuidonWarning):
                    print(f"note: {message}", file=sys.stderr)
                else:
                    others(message, category, *where)

            warnings.showwarning = show  # type: ignore[assignment]
            return int(app.meta(tokens) or 0)
    except CycloptsError as error:  # of the options that go everywhere
        return _complain(_message(error))
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  the interpreter flushes it on its way out
        return 0


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


def _message(error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, CycloptsError):
        return f"{text.rstrip('.')}. See guidon {' '.join(error.command_chain or ('',))} --help".replace("  ", " ")
    return text


def _complain(message: str, code: int = 2) -> int:
    print(f"guidon: {message}", file=sys.stderr)
    return code
