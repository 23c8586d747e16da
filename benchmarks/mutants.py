"""Does a test notice when a formula of guidance is wrong? Every small wrong change is made in turn, and the tests run against it.

    python benchmarks/mutants.py                   all of src/guidon/guidance; what was judged before is not judged again
    python benchmarks/mutants.py --only apg cfg    some files
    python benchmarks/mutants.py --list            what would be changed

A mutant is killed when a test fails, and hung (which counts as killed) when the tests take far too long. What survives shows a
missing test, or changes nothing that can be seen: then it belongs into EQUIVALENT, with the reason. Ctrl-C keeps what was
judged; a mutant is judged anew when its file changes, or the tests that its verdict rests on. Writes results/mutants.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from mutations import Mutant, mutants_of
from trials import PACKAGE, Plan, Verdict, trials, unchanged

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/mutants.json"
JUDGED = ROOT / ".bench/mutants.jsonl"
UNCHANGED = ROOT / ".bench/mutants-unchanged.json"
NO_FORMULAS = ("__init__.py", "rule.py", "citations.py")  # names, dataclasses, references
COPIED = ("src/guidon", "tests", "recipes", "docs", "pyproject.toml")
GUARDS = (  # the quick ones first
    "guidance/test_*.py",
    "parity/test_guiders*.py",
    "parity/test_*_golden.py",
    "laws/test_rule*.py",
    "laws/test_stage*.py",
)

# (identity of a mutant as `--list` prints it, why no test can see it)
EQUIVALENT: dict[str, str] = {}

app = App(help=__doc__, help_format="plaintext", version_flags=())


@app.default
def main(
    *,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    jobs: int = 1,
    limit: int | None = None,
    list_: Annotated[bool, Parameter(name="--list", negative=())] = False,
) -> None:
    """Judge mutants and write the table.

    Args:
        only: files of the guidance package, without .py.
        jobs: mutants judged at the same time.
        limit: mutants judged at most.
        list_: print the mutants and judge none.
    """
    everyone = [
        mutant
        for path in sorted((ROOT / PACKAGE).glob("*.py"))
        if path.name not in NO_FORMULAS
        for mutant in mutants_of(path.name, path.read_text())
    ]
    if unknown := {name.removesuffix(".py") for name in only} - {Path(mutant.file).stem for mutant in everyone}:
        sys.exit(
            f"no formulas in {', '.join(sorted(unknown))}; there are: {', '.join(sorted({m.file for m in everyone}))}"
        )
    if stale := set(EQUIVALENT) - {mutant.name for mutant in everyone}:
        sys.exit("these mutants no longer exist; take them out of EQUIVALENT:\n" + "\n".join(sorted(stale)))
    chosen = [mutant for mutant in everyone if not only or Path(mutant.file).stem in {Path(o).stem for o in only}]
    if list_:
        print("\n".join(f"{mutant.line:4d}  {mutant.name}" for mutant in chosen))
        return
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder).resolve()
        _copy(snapshot)
        judge = Judge(snapshot)
        judged = judge.remembered(everyone)
        todo = [mutant for mutant in chosen if mutant.name not in judged and mutant.name not in EQUIVALENT][:limit]
        try:
            judge(todo, jobs, judged)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not keep the table from being written
            print("stopped; the table so far:", file=sys.stderr)
    account = _account(everyone, judged, judge.left_out)
    print(_table(account, {mutant.file for mutant in chosen}))
    whole = account["totals"]
    sys.exit(0 if whole["survived"] == whole["not judged"] == 0 and not judge.left_out else 1)


def _copy(snapshot: Path) -> None:
    """Copy package and tests, so that nothing changes under the run."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, snapshot / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, snapshot / name)


class Judge:
    """Runs the tests against mutants, and remembers the verdicts.

    Args:
        snapshot: where copies of the package and its tests lie.

    Attributes:
        left_out: tests that fail without any change, and so tell nothing.
    """

    def __init__(self, snapshot: Path) -> None:
        self.snapshot = snapshot
        tests = snapshot / "tests"
        self.files = [str(path.relative_to(snapshot)) for guard in GUARDS for path in sorted(tests.glob(guard))]
        os.environ.setdefault("GUIDON_GOLDEN", str(ROOT.parent / "shared" / "golden"))
        sources = [path for name in ("src", "tests") for path in sorted((snapshot / name).rglob("*.py"))]
        known = _digest(*(path.read_text() for path in sources))
        told = json.loads(UNCHANGED.read_text()) if UNCHANGED.exists() else {}
        if told.get("of") != known:
            told = {"of": known, **unchanged(snapshot, self.files)}
            UNCHANGED.parent.mkdir(exist_ok=True)
            UNCHANGED.write_text(json.dumps(told))
        self.left_out, self.reached, self.seconds = told["failed"], told["reached"], told["seconds"]
        if self.left_out:
            shown = "\n".join(["", *self.left_out[:10], *(["..."] if len(self.left_out) > 10 else [])])
            print(f"left out, for they fail without any change, {len(self.left_out)} tests:{shown}", file=sys.stderr)

    def __call__(self, todo: Sequence[Mutant], jobs: int, judged: dict[str, Verdict]) -> None:
        """Judge mutants, and add each verdict to ``judged`` and to the file that remembers."""
        limit = 20 + 2 * self.seconds
        print(f"{len(todo)} mutants; all tests take {self.seconds:.1f} s, the limit is {limit:.0f} s", file=sys.stderr)
        with JUDGED.open("a") as record:
            found = trials(todo, self.snapshot, self._plan, limit, jobs)
            for count, (mutant, verdict) in enumerate(found, start=1):
                judged[mutant.name] = verdict
                known = {"source": _digest(mutant.source), "tests": self._rests_on(verdict), **verdict}
                record.write(json.dumps(known) + "\n")
                record.flush()
                told = f"{count}/{len(todo)} {verdict['verdict']:8s} {mutant.line:3d} {mutant.name}"
                print(f"{told}  ({verdict['by']}, {verdict['seconds']:.1f} s)", file=sys.stderr, flush=True)

    def remembered(self, everyone: Sequence[Mutant]) -> dict[str, Verdict]:
        """Return the verdicts of earlier runs that still hold, by the mutants' names."""
        records = [json.loads(line) for line in JUDGED.read_text().splitlines()] if JUDGED.exists() else []
        holding = {record["source"]: record for record in records if record["tests"] == self._rests_on(record)}
        found = {mutant.name: holding.get(_digest(mutant.source)) for mutant in everyone}
        return {name: {k: record[k] for k in ("verdict", "by", "seconds")} for name, record in found.items() if record}

    def _plan(self, mutant: Mutant) -> Plan:
        """Return the tests that get to the function, file by file, those of a file named after it first."""
        place, own = f"{mutant.file} {mutant.function}", f"tests/guidance/test_{mutant.file}"
        tests = [test for test, reached in self.reached.items() if place in reached and test not in self.left_out]
        files = [list(group) for _, group in groupby(tests, key=_file_of)]
        return sorted(files, key=lambda group: _file_of(group[0]) != own)

    def _rests_on(self, verdict: Verdict) -> str:
        """Return a digest of the tests that a verdict rests on: the one that killed, else all; and what they share."""
        shared = [self.snapshot / "tests/conftest.py", *sorted((self.snapshot / "tests/support").glob("*.py"))]
        killer = self.snapshot / _file_of(verdict["by"])
        if killer.is_file():
            return _digest(*(path.read_text() for path in (killer, *shared)))
        files = [self.snapshot / name for name in self.files]
        return _digest(*(path.read_text() for path in (*files, *shared)), *self.left_out)


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _account(everyone: Sequence[Mutant], judged: Mapping[str, Verdict], left_out: Sequence[str]) -> dict[str, Any]:
    """Write and return the table: for each file and class how many were made, killed and survived, and which."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for mutant in everyone:
        row = rows.setdefault((mutant.file, mutant.owner), {"counts": Counter(), "kinds": Counter(), "survivors": []})
        verdict = (
            "equivalent" if mutant.name in EQUIVALENT else judged.get(mutant.name, {}).get("verdict", "not judged")
        )
        row["counts"][verdict] += 1
        row["kinds"][mutant.kind] += 1
        if verdict == "survived":
            told = {name: getattr(mutant, name) for name in ("function", "line", "kind", "before", "after")}
            row["survivors"].append(told)
    from stages import machine  # imports the package, and no child is forked any more

    verdicts = ("killed", "hung", "equivalent", "survived", "not judged")
    total = sum((row["counts"] for row in rows.values()), Counter[str]())
    account = {
        "what": "formulas of guidance with one small wrong change each, against the tests",
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "command": " ".join(["python", "benchmarks/mutants.py", *sys.argv[1:]]),
        "machine": machine(),
        "settings": {"guards": list(GUARDS), "without": list(NO_FORMULAS), "left_out": list(left_out)},
        "totals": {"made": len(everyone), **{verdict: total[verdict] for verdict in verdicts}},
        "rows": [
            {
                "file": file,
                "of": owner,
                "made": row["counts"].total(),
                **{verdict: row["counts"][verdict] for verdict in verdicts},
                "kinds": dict(sorted(row["kinds"].items())),
                "survivors": row["survivors"],
            }
            for (file, owner), row in rows.items()
        ],
        "equivalent": [{"mutant": name, "why": why} for name, why in EQUIVALENT.items()],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(account, indent=2) + "\n")
    return account


def _table(account: Mapping[str, Any], files: Collection[str]) -> str:
    columns = ("made", "killed", "hung", "equivalent", "survived", "not judged")
    lines = [f"| file | of | {' | '.join(columns)} |", f"| --- | --- |{' ---: |' * len(columns)}"]
    rows = [row for row in account["rows"] if row["file"] in files]
    for row in (*rows, {"file": "all", "of": "", **account["totals"]}):
        lines.append(f"| {row['file']} | {row['of']} | {' | '.join(str(row[column]) for column in columns)} |")
    survivors = [(row["file"], one) for row in rows for one in row["survivors"]]
    lines += ["", "Survived:", ""] if survivors else []
    lines += [
        f"- {file}:{one['line']} {one['function']}: `{one['before']}` -> `{one['after']}`" for file, one in survivors
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
