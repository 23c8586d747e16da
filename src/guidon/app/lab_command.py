"""``guidon lab``: experiments in worlds where the truth about guidance is known."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

LIST_EXAMPLES = """Examples:

  guidon lab list                        what can be asked
  guidon lab list two-modes              one of them in full
  guidon lab run two-modes -o lab        ask it"""

RUN_EXAMPLES = """Examples:

  guidon lab run all                          every one that is not done yet
  guidon lab run two-modes orders -o out      two of them
  guidon lab run 'fields(rule="cfg(4)|apg")'  with other settings
  guidon lab run components --data cifar10/   on the images of a folder"""

lab = App(
    name="lab",
    help="Experiments in worlds where the truth about guidance is known.",
    help_format="plaintext",
    help_epilogue=LIST_EXAMPLES,
)


@lab.command(name="list", help_epilogue=LIST_EXAMPLES)
def list_experiments(name: str | None = None) -> None:
    """List the experiments and what each asks, or tell one in full.

    Args:
        name: of an experiment; left out: all.
    """
    from rich.padding import Padding
    from rich.text import Text

    from guidon.app.console import Output
    from guidon.app.list_command import arguments
    from guidon.app.rule_cards import read_docstring
    from guidon.errors import UnknownName
    from guidon.lab.experiments import experiments

    console, known = Output(), dict(experiments())
    if name is None:
        for each, member in known.items():
            console.print(Text(each, "bold"))
            console.print(Padding(Text(f"{member.title}: {member.asks}"), (0, 0, 0, 2)))
        return
    if name not in known:
        raise UnknownName("experiment", name, known)
    member = known[name]
    console.print(Text(f"{name}: {member.title}", "bold underline"))
    paragraphs = [" ".join(paragraph.split()) for paragraph in (member.asks, *member.text().split("\n\n"))]
    console.print(Text("\n\n".join(paragraphs) + "\n"))
    about = read_docstring(inspect.getdoc(member) or "")[2]
    for setting in arguments(member):
        console.print(Text.assemble("  ", (setting, "bold")))
        console.print(Padding(Text(about.get(setting.partition("=")[0], "")), (0, 0, 0, 6)))


@lab.command(help_epilogue=RUN_EXAMPLES)
def run(
    *names: str,
    out: Annotated[Path, Parameter(alias="-o")] = Path("lab"),
    data: Path | None = None,
    again: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Do experiments and write what each found: a JSON table and pictures.

    Args:
        names: of experiments, with settings in brackets where wanted, or all.
        out: the folder to write into.
        data: images for the experiments that look at some: a folder, Parquet files, or a hub id; left out: their own default.
        again: also those whose findings are there already.
    """
    from rich.padding import Padding
    from rich.text import Text

    from guidon.app.console import Output
    from guidon.errors import BadValue
    from guidon.lab.experiment import done, name_of, write
    from guidon.lab.experiments import chosen

    if not names:
        raise BadValue("say which experiment: guidon lab list names them, and `guidon lab run all` does every one")
    wanted = chosen(names, None if data is None else str(data))
    console = Output()
    out.mkdir(parents=True, exist_ok=True)  # what cannot be written is better known before the work
    for number, experiment in enumerate(wanted, start=1):
        label = f"[{number}/{len(wanted)}] {name_of(experiment)}"
        if not again and done(out, experiment):
            print(f"{label}: done before, see {done(out, experiment)}")
            continue
        print(f"{label} ...", flush=True)
        try:
            with _Bars(label) as bars:
                account = write(out, experiment, bars)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on with this experiment") from None
        for sentence in account["sees"]:
            console.print(Padding(Text(sentence), (0, 0, 0, 4)))
        print(f"  wrote {', '.join(str(out / file) for file in account['files'])}")


class _Bars:
    """Progress with ETA on standard error, gone when the experiment is done."""

    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self.label = label
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def __enter__(self) -> _Bars:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def __call__(self, parts: Sequence[Any], what: str) -> Iterable[Any]:
        """Go through the parts of a work and show how far it is."""
        return self.progress.track(parts, description=f"{self.label}: {what}")
