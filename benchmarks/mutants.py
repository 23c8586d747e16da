"""Does a test notice when a formula is wrong? Every small wrong change is made in turn, and the tests run against it.

    python benchmarks/mutants.py                      guidance, solvers, noise; what was judged before is not judged again
    python benchmarks/mutants.py --only solvers apg   a part, some files
    python benchmarks/mutants.py --every 2            every second mutant
    python benchmarks/mutants.py --list               what would be changed

A mutant is killed when a test fails, and hung (which counts as killed) when the tests take far too long. What survives shows a
missing test, or changes nothing that can be seen: then it belongs into EQUIVALENT, with the reason. Ctrl-C keeps what was
judged; a mutant is judged anew when the code of its file changes, or the tests that its verdict rests on. Writes
results/mutants.json, of which each part stays as it is until a run concerns it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
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
HELPERS = ("support", "parity")  # folders of tests with files that tests import
COLUMNS = ("made", "killed", "hung", "equivalent", "survived", "not judged")
COPIED = ("src/guidon", "tests", "recipes", "docs", "pyproject.toml")


@dataclass(frozen=True)
class Part:
    """A folder of the package.

    Args:
        files: with formulas, or patterns of them.
        guards: patterns of tests, the quick ones first; what one of them kills the next ones are not asked about.
    """

    files: tuple[str, ...]
    guards: tuple[str, ...]


PARTS = {
    "guidance": Part(
        ("*.py",),
        (
            "guidance/test_*.py",
            "parity/test_guiders*.py",
            "parity/test_*_golden.py",
            "laws/test_rule*.py",
            "laws/test_stage*.py",
        ),
    ),
    "noise": Part(
        ("time_grids.py", "noise_grids.py", "conventions.py", "sde.py", "posterior.py", "bound.py"),
        (
            "noise/test_[bgs]*.py",
            "noise/test_posterior.py",
            "parity/test_openai_process.py",
            "parity/test_kdiffusion.py",
            "parity/test_diffusers.py",
            "laws/test_processes.py",
        ),
    ),
    "solvers": Part(
        ("*.py",),
        (
            "solvers/test_[!c]*.py",
            "solvers/test_c[hl]*.py",  # and not those of convergence, which take long
            "parity/test_kdiffusion.py",
            "parity/test_diffusers.py",
            "parity/test_edm_golden.py",
            "laws/test_solvers.py",
        ),
    ),
}
OWN = {  # the tests of a file where they are not named after it
    "solvers/corrector.py": "solvers/test_pcg.py",
    "solvers/langevin.py": "solvers/test_pcg.py",
    "solvers/plms.py": "solvers/test_adams_solvers.py",
    "solvers/phi.py": "solvers/test_unipc.py",
    **{
        f"solvers/{name}.py": "solvers/test_dpm_solvers.py"
        for name in ("dpm2", "dpmpp", "dpmpp_ancestral", "dpmpp_sde")
    },
    "noise/conventions.py": "noise/test_grid_conventions.py",
    "noise/time_grids.py": "noise/test_grids.py",
    "noise/noise_grids.py": "noise/test_grids.py",
}

# (identity of a mutant as `--list` prints it, why no test can see it)
SQUARED = "only its square is used"
EQUIVALENT: dict[str, str] = {
    "guidance/channels.py Channels.shape: away [2] -> given": "both are of one state, and a chain has its variance from elsewhere",
    "guidance/dynamic_scale.py DynamicScale.pull: GIVEN -> NULL": "all branches of a step are told the same state",
    "guidance/feedback.py FBG.pull: at.there.noise_level / at.here.sigma -> -(at.there.noise_level / at.here.sigma)": SQUARED,
    "guidance/feedback.py _transition: there.noise_level / here.noise_level -> -(there.noise_level / here.noise_level)": SQUARED,
    "guidance/feedback.py temperature_from_t1: 2 * variance * _bias(share, t0, steps) / distance -> "
    "-(2 * variance * _bias(share, t0, steps) / distance)": "its size is taken",
    "guidance/perp_neg.py PerpNeg.combine: null [2] -> given": "where it matters both are equal but for rounding",
    "guidance/perp_neg.py PerpNeg.combine: null [3] -> given": "what is across the difference is so from either end of it",
    "guidance/pyramid.py _blur: here + offset -> here - offset": "the kernel is the same both ways",
    "guidance/pyramid.py _blur: share / 16 -> -(share / 16)": "it acts on rows and on columns, and a sign twice is none",
    "guidance/pyramid.py _blur: matrix[here, torch.minimum(there, period - there)] += share / 16 -> "
    "matrix[here, torch.minimum(there, period - there)] -= share / 16": "as above",
    "guidance/rule.py Branch.plain: 1.0 -> 2.0": "any number that is always the same",
    "guidance/rule.py Branch.plain: 0 -> 1": "as above",
    "guidance/space.py rescaled: guided -> given": "both have as many numbers",
    "guidance/threshold.py DynamicThreshold.reshape: guided [2] -> given": "both have as many axes",
    "guidance/weights.py CosineWeight.at: math.pi * moment.ramp -> -(math.pi * moment.ramp)": "the cosine is even",
    "guidance/weights.py BetaWeight._density: way ** (self.a - 1) * (1 - way) ** (self.b - 1) -> "
    "-(way ** (self.a - 1) * (1 - way) ** (self.b - 1))": "the densities are divided by one another",
    "noise/conventions.py Ends.levels: _noise_level(levels[-2]) > _noise_level(least) * (1 + NEAR) -> "
    "_noise_level(levels[-2]) >= _noise_level(least) * (1 + NEAR)": "they are never the same to the last bit",
    "noise/sde.py VP.time_at: noise_level > 1 -> noise_level >= 1": "there both forms are the same number",
    "solvers/dpmpp.py DPMSolver2M.step: 2 [2] -> 3": "asked is only whether more than 1 is left",
    "solvers/dpmpp_sde.py DPMpp3MSDE.step: 3 -> 4": "a parabola takes the newest three whatever is remembered",
    "solvers/phi.py phi: abs(z) < 1 -> abs(z) <= 1": "there the series and the closed form are the same number",
    "noise/sde.py VP.time_at: 1 -> 2": "between 1 and 2 both forms are the same number",
    "noise/time_grids.py respaced_indices: 1.0 -> 2.0": "the stride of a section of which one index is kept",
    "solvers/ancestral.py kept_and_fresh: at.there.noise_level / at.noise_level -> -(at.there.noise_level / at.noise_level)": SQUARED,
    "solvers/ancestral.py kept_and_fresh: eta * ratio -> -(eta * ratio)": SQUARED,
    "noise/posterior.py posterior_variances: here.alpha / there.alpha -> -(here.alpha / there.alpha)": SQUARED,
    "solvers/corrector.py PCG.step: float(at.there.noise_level) / at.noise_level -> "
    "-(float(at.there.noise_level) / at.noise_level)": SQUARED,
}

app = App(help=__doc__, help_format="plaintext", version_flags=())


@app.default
def main(
    *,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    jobs: int = 1,
    limit: int | None = None,
    every: int = 1,
    list_: Annotated[bool, Parameter(name="--list", negative=())] = False,
) -> None:
    """Judge mutants and write the table.

    Args:
        only: parts, or files without .py.
        jobs: mutants judged at the same time.
        limit: mutants judged at most.
        every: 2 judges every second mutant of a file, and so on.
        list_: print the mutants and judge none.
    """
    everyone = [mutant for file in _files() for mutant in mutants_of(file, (ROOT / PACKAGE / file).read_text())]
    asked = {name.removesuffix(".py") for name in only}
    if unknown := asked - {name for mutant in everyone for name in _called(mutant)}:
        sys.exit(
            f"no formulas in {', '.join(sorted(unknown))}; there are: {', '.join(sorted({m.file for m in everyone}))}"
        )
    if stale := set(EQUIVALENT) - {mutant.name for mutant in everyone}:
        sys.exit("these mutants no longer exist; take them out of EQUIVALENT:\n" + "\n".join(sorted(stale)))
    chosen = [mutant for mutant in everyone if not only or asked & _called(mutant)]
    if list_:
        print("\n".join(f"{mutant.line:4d}  {mutant.name}" for mutant in chosen))
        return
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder).resolve()
        _copy(snapshot)
        judge = Judge(snapshot)
        judged = judge.remembered(everyone)
        sample = [mutant for _, file in groupby(chosen, key=attrgetter("file")) for mutant in list(file)[::every]]
        todo = [mutant for mutant in sample if mutant.name not in judged and mutant.name not in EQUIVALENT][:limit]
        try:
            for part in PARTS:
                judge(part, [mutant for mutant in todo if _part(mutant) == part], jobs, judged)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not keep the table from being written
            print("stopped; the table so far:", file=sys.stderr)
    account = _account(everyone, judged, judge.left_out, {_part(mutant) for mutant in chosen}, every)
    print(_table(account, {mutant.file for mutant in chosen}))
    whole = account["totals"]
    sys.exit(0 if whole["survived"] == whole["not judged"] == 0 and not judge.left_out else 1)


def _files() -> list[str]:
    """Return the files with formulas, from the package's folder."""
    found = {path for name, part in PARTS.items() for only in part.files for path in (ROOT / PACKAGE / name).glob(only)}
    return [str(path.relative_to(ROOT / PACKAGE)) for path in sorted(found) if path.name not in NO_FORMULAS]


def _part(mutant: Mutant) -> str:
    return mutant.file.partition("/")[0]


def _called(mutant: Mutant) -> set[str]:
    """Return the names that choose a mutant: its part and its file."""
    return {_part(mutant), Path(mutant.file).stem}


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
        self.helped = functools.cache(self._helped)
        JUDGED.parent.mkdir(exist_ok=True)
        os.environ.setdefault("GUIDON_GOLDEN", str(ROOT.parent / "shared" / "golden"))
        sources = [path for name in ("src", "tests") for path in sorted((snapshot / name).rglob("*.py"))]
        self.known = _digest(*(path.read_text() for path in sources))

    def __call__(self, part: str, todo: Sequence[Mutant], jobs: int, judged: dict[str, Verdict]) -> None:
        """Judge mutants of a part, and add each verdict to ``judged`` and to the file that remembers."""
        spent: Counter[str] = Counter()
        with JUDGED.open("a") as record:
            for guard in PARTS[part].guards:
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
                    if verdict["verdict"] == "survived" and guard != PARTS[part].guards[-1]:
                        left.append(mutant)
                        continue
                    judged[mutant.name] = verdict
                    known = {
                        "source": _digest(essence(mutant.source)),
                        "tests": self._rests_on(verdict, part),
                        **verdict,
                    }
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
            told = {"of": self.known, **unchanged(self.snapshot, self._files(guard), _files())}
            UNCHANGED.write_text(json.dumps({**everything, guard: told}))
        self.left_out += [test for test in told["failed"] if test not in self.left_out]
        if told["failed"]:
            shown = "\n".join(["", *told["failed"][:10], *(["..."] if len(told["failed"]) > 10 else [])])
            print(f"left out, for they fail without any change, {len(told['failed'])} tests:{shown}", file=sys.stderr)
        return told

    def remembered(self, everyone: Sequence[Mutant]) -> dict[str, Verdict]:
        """Return the verdicts of earlier runs that still hold, by the mutants' names."""
        records = [json.loads(line) for line in JUDGED.read_text().splitlines()] if JUDGED.exists() else []
        holding = {
            (part, record["source"]): {key: record[key] for key in ("verdict", "by", "seconds")}
            for record in records
            for part in PARTS
            if record["tests"] == self._rests_on(record, part)
        }
        found = {mutant.name: holding.get((_part(mutant), _digest(essence(mutant.source)))) for mutant in everyone}
        return {name: verdict for name, verdict in found.items() if verdict}

    def _rests_on(self, verdict: Verdict, part: str) -> str:
        """Return a digest of the tests that a verdict rests on: the file that killed, else all; and of what they import."""
        killer = _file_of(verdict["by"])
        alone = (self.snapshot / killer).is_file()
        names = [killer] if alone else [name for guard in PARTS[part].guards for name in self._files(guard)]
        return _digest(*(self.helped(name) for name in names))

    def _helped(self, name: str) -> str:
        """Return a digest of a file of tests and the helpers that it imports, and those that they import."""
        tests, found = self.snapshot / "tests", list[Path]()
        helpers = {f"{folder}.{path.stem}": path for folder in HELPERS for path in (tests / folder).glob("[!t]*.py")}
        waiting = [self.snapshot / name, tests / "conftest.py"]
        while waiting:
            path = waiting.pop()
            if path not in found and path.is_file():
                found.append(path)
                waiting += [helper for module, helper in helpers.items() if f"from {module} import" in path.read_text()]
        return _digest(*(path.read_text() for path in sorted(found)))


def _plan(mutant: Mutant, told: Mapping[str, Any]) -> Plan:
    """Return the tests that get to the function, file by file, its own first, and in a file the quick ones first."""
    place, own = f"{mutant.file} {mutant.function}", OWN.get(mutant.file, mutant.file.replace("/", "/test_"))
    tests = [test for test, reached in told["reached"].items() if place in reached and test not in told["failed"]]
    files = [sorted(group, key=lambda test: told["took"].get(test, 0)) for _, group in groupby(tests, key=_file_of)]
    return sorted(files, key=lambda group: not _file_of(group[0]).startswith(f"tests/{own.removesuffix('.py')}"))


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _account(
    everyone: Sequence[Mutant],
    judged: Mapping[str, Verdict],
    left_out: Sequence[str],
    parts: Collection[str],
    every: int,
) -> dict[str, Any]:
    """Write and return the table, anew for some parts: how many of each class were made, killed and survived, and which."""
    from stages import machine  # imports the package, and no child is forked any more

    told = json.loads(RESULTS.read_text())["parts"] if RESULTS.exists() else {}
    for part in parts:
        rows = _rows([mutant for mutant in everyone if _part(mutant) == part], judged)
        told[part] = {
            "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            "command": " ".join(["python", "benchmarks/mutants.py", *sys.argv[1:]]),
            "machine": machine(),
            "settings": {"guards": list(PARTS[part].guards), "left_out": list(left_out), "every": every},
            "totals": _totals(rows),
            "rows": rows,
            "equivalent": [
                {"mutant": name, "why": why} for name, why in EQUIVALENT.items() if name.startswith(f"{part}/")
            ],
        }
    account = {
        "what": "formulas with one small wrong change each, against the tests; every part as its last run left it",
        "totals": _totals(one["totals"] for one in told.values()),
        "parts": {part: told[part] for part in PARTS if part in told},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(account, indent=2) + "\n")
    return account


def _rows(mutants: Sequence[Mutant], judged: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for mutant in mutants:
        row = rows.setdefault((mutant.file, mutant.owner), {"counts": Counter(), "kinds": Counter(), "survivors": []})
        verdict = (
            "equivalent" if mutant.name in EQUIVALENT else judged.get(mutant.name, {}).get("verdict", "not judged")
        )
        row["counts"][verdict] += 1
        row["kinds"][mutant.kind] += 1
        if verdict == "survived":
            told = {name: getattr(mutant, name) for name in ("function", "line", "kind", "before", "after")}
            row["survivors"].append(told)
    return [
        {
            "file": file,
            "of": owner,
            "made": row["counts"].total(),
            **{verdict: row["counts"][verdict] for verdict in COLUMNS[1:]},
            "kinds": dict(sorted(row["kinds"].items())),
            "survivors": row["survivors"],
        }
        for (file, owner), row in rows.items()
    ]


def _totals(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    rows = list(rows)
    return {column: sum(row[column] for row in rows) for column in COLUMNS}


def _table(account: Mapping[str, Any], files: Collection[str]) -> str:
    lines = [f"| file | of | {' | '.join(COLUMNS)} |", f"| --- | --- |{' ---: |' * len(COLUMNS)}"]
    rows = [row for part in account["parts"].values() for row in part["rows"] if row["file"] in files]
    for row in (*rows, {"file": "all", "of": "", **account["totals"]}):
        lines.append(f"| {row['file']} | {row['of']} | {' | '.join(str(row[column]) for column in COLUMNS)} |")
    survivors = [(row["file"], one) for row in rows for one in row["survivors"]]
    lines += ["", "Survived:", ""] if survivors else []
    lines += [
        f"- {file}:{one['line']} {one['function']}: `{one['before']}` -> `{one['after']}`" for file, one in survivors
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
