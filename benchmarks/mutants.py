"""Does a test notice when a formula of guidance is wrong? Every small wrong change is made in turn, and the tests run against it.

    python benchmarks/mutants.py                   all of src/guidon/guidance; what was judged before is not judged again
    python benchmarks/mutants.py --only apg cfg    some files
    python benchmarks/mutants.py --list            what would be changed

A mutant is killed when a test fails, and hung (which counts as killed) when the tests take far too long. What survives shows a
missing test, or changes nothing that can be seen: then it belongs into EQUIVALENT, with the reason. Ctrl-C keeps what was
judged; a mutant is judged anew when the code of its file changes, or the tests that its verdict rests on. Writes results/mutants.json.
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
from mutations import Mutant, essence, mutants_of
from trials import PACKAGE, Plan, Verdict, trials, unchanged

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/mutants.json"
JUDGED = ROOT / ".bench/mutants.jsonl"
UNCHANGED = ROOT / ".bench/mutants-unchanged.json"
NO_FORMULAS = ("__init__.py", "citations.py")  # names, references
COPIED = ("src/guidon", "tests", "recipes", "docs", "pyproject.toml")
GUARDS = (  # the quick ones first; what one of them kills the next ones are not asked about
    "guidance/test_*.py",
    "parity/test_guiders*.py",
    "parity/test_*_golden.py",
    "laws/test_rule*.py",
    "laws/test_stage*.py",
)

# (identity of a mutant as `--list` prints it, why no test can see it)
SQUARED = "only its square is used"
EQUIVALENT: dict[str, str] = {
    "dynamic_scale.py DynamicScale.pull: GIVEN -> NULL": "all branches of a step are told the same state",
    "feedback.py FBG.pull: at.there.noise_level / at.here.sigma -> -(at.there.noise_level / at.here.sigma)": SQUARED,
    "feedback.py _transition: there.noise_level / here.noise_level -> -(there.noise_level / here.noise_level)": SQUARED,
    "feedback.py temperature_from_t1: 2 * variance * _bias(share, t0, steps) / distance -> "
    "-(2 * variance * _bias(share, t0, steps) / distance)": "its size is taken",
    "perp_neg.py PerpNeg.combine: null [2] -> given": "where it matters both are equal but for rounding",
    "perp_neg.py PerpNeg.combine: null [3] -> given": "what is across the difference is so from either end of it",
    "pyramid.py _blur: here + offset -> here - offset": "the kernel is the same both ways",
    "pyramid.py _blur: share / 16 -> -(share / 16)": "it acts on rows and on columns, and a sign twice is none",
    "pyramid.py _blur: matrix[here, torch.minimum(there, period - there)] += share / 16 -> "
    "matrix[here, torch.minimum(there, period - there)] -= share / 16": "as above",
    "rule.py Branch.plain: 1.0 -> 2.0": "any number that is always the same",
    "rule.py Branch.plain: 0 -> 1": "as above",
    "space.py rescaled: guided -> given": "both have as many numbers",
    "threshold.py DynamicThreshold.reshape: guided [2] -> given": "both have as many axes",
    "weights.py CosineWeight.at: math.pi * moment.ramp -> -(math.pi * moment.ramp)": "the cosine is even",
    "weights.py BetaWeight._density: way ** (self.a - 1) * (1 - way) ** (self.b - 1) -> "
    "-(way ** (self.a - 1) * (1 - way) ** (self.b - 1))": "the densities are divided by one another",
}

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
        self.snapshot, self.left_out = snapshot, list[str]()
        JUDGED.parent.mkdir(exist_ok=True)
        os.environ.setdefault("GUIDON_GOLDEN", str(ROOT.parent / "shared" / "golden"))
        sources = [path for name in ("src", "tests") for path in sorted((snapshot / name).rglob("*.py"))]
        self.known = _digest(*(path.read_text() for path in sources))

    def __call__(self, todo: Sequence[Mutant], jobs: int, judged: dict[str, Verdict]) -> None:
        """Judge mutants, and add each verdict to ``judged`` and to the file that remembers."""
        spent: Counter[str] = Counter()
        with JUDGED.open("a") as record:
            for guard in GUARDS:
                if not todo:
                    return
                told = self._unchanged(guard)
                limit = 20 + 2 * told["seconds"]
                print(f"{len(todo)} mutants, {guard}: {told['seconds']:.1f} s, at most {limit:.0f} s", file=sys.stderr)
                left = []
                for count, (mutant, found) in enumerate(
                    trials(todo, self.snapshot, lambda mutant, told=told: _plan(mutant, told), limit, jobs), start=1
                ):
                    spent[mutant.name] += found["seconds"]
                    verdict = {**found, "seconds": round(spent[mutant.name], 2)}
                    said = f"{count}/{len(todo)} {verdict['verdict']:8s} {mutant.line:3d} {mutant.name}"
                    print(f"{said}  ({verdict['by']}, {verdict['seconds']:.1f} s)", file=sys.stderr, flush=True)
                    if verdict["verdict"] == "survived" and guard != GUARDS[-1]:
                        left.append(mutant)
                        continue
                    judged[mutant.name] = verdict
                    known = {"source": _digest(essence(mutant.source)), "tests": self._rests_on(verdict), **verdict}
                    record.write(json.dumps(known) + "\n")
                    record.flush()
                todo = left

    def _files(self, guard: str) -> list[str]:
        return [str(path.relative_to(self.snapshot)) for path in sorted((self.snapshot / "tests").glob(guard))]

    def _unchanged(self, guard: str) -> dict[str, Any]:
        """Return what `trials.unchanged` tells of the tests of a guard."""
        everything = json.loads(UNCHANGED.read_text()) if UNCHANGED.exists() else {}
        told = everything.get(guard, {})
        if told.get("of") != self.known:
            told = {"of": self.known, **unchanged(self.snapshot, self._files(guard))}
            UNCHANGED.write_text(json.dumps({**everything, guard: told}))
        self.left_out += told["failed"]
        if told["failed"]:
            shown = "\n".join(["", *told["failed"][:10], *(["..."] if len(told["failed"]) > 10 else [])])
            print(f"left out, for they fail without any change, {len(told['failed'])} tests:{shown}", file=sys.stderr)
        return told

    def remembered(self, everyone: Sequence[Mutant]) -> dict[str, Verdict]:
        """Return the verdicts of earlier runs that still hold, by the mutants' names."""
        records = [json.loads(line) for line in JUDGED.read_text().splitlines()] if JUDGED.exists() else []
        holding = {record["source"]: record for record in records if record["tests"] == self._rests_on(record)}
        found = {mutant.name: holding.get(_digest(essence(mutant.source))) for mutant in everyone}
        return {name: {k: record[k] for k in ("verdict", "by", "seconds")} for name, record in found.items() if record}

    def _rests_on(self, verdict: Verdict) -> str:
        """Return a digest of the tests that a verdict rests on: the one that killed, else all; and what they share."""
        shared = [self.snapshot / "tests/conftest.py", *sorted((self.snapshot / "tests/support").glob("*.py"))]
        killer = self.snapshot / _file_of(verdict["by"])
        if killer.is_file():
            return _digest(*(path.read_text() for path in (killer, *shared)))
        files = [self.snapshot / name for guard in GUARDS for name in self._files(guard)]
        return _digest(*(path.read_text() for path in (*files, *shared)))


def _plan(mutant: Mutant, told: Mapping[str, Any]) -> Plan:
    """Return the tests that get to the function, file by file, those of a file named after it first."""
    place, own = f"{mutant.file} {mutant.function}", f"tests/guidance/test_{mutant.file}"
    tests = [test for test, reached in told["reached"].items() if place in reached and test not in told["failed"]]
    files = [list(group) for _, group in groupby(tests, key=_file_of)]
    return sorted(files, key=lambda group: _file_of(group[0]) != own)


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
