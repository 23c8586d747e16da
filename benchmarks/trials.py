"""Runs tests against a changed file of the package, each time in a child of a process that has loaded all but the package.

So a trial costs what its tests cost, and not the seconds that torch takes to load. The tests run once without any change, and
are watched for the functions that they get to: against a change run only those that get to the function it is in.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from hypothesis import Phase, settings
from mutations import Mutant

PACKAGE = "src/guidon"
LOADED_ONCE = (
    "torch",
    "numpy",
    "scipy.special",
    "safetensors.torch",
    "pydantic",
    "yaml",
)  # by the tests, besides pytest and hypothesis

Plan = Sequence[Sequence[str]]  # groups of tests, run one after the other until one fails
Verdict = dict[str, Any]  # verdict: killed, hung or survived; by: the test that failed; seconds


def trials(
    mutants: Sequence[Mutant],
    folder: Path,
    plan: Callable[[Mutant], Plan],
    seconds: float,
    jobs: int = 1,
) -> Iterator[tuple[Mutant, Verdict]]:
    """Yield the verdict on each mutant, in the order that the trials end.

    Args:
        mutants: what to try.
        folder: where copies of the package and its tests lie.
        plan: the tests to run against a mutant.
        seconds: the longest that a trial may take.
        jobs: trials at the same time.
    """
    waiting, running = list(mutants), dict[Connection, tuple[Any, Mutant, float]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop(0)
                pipe, child = _forked(_try, mutant, folder, plan(mutant))
                running[pipe] = child, mutant, time.monotonic()
            ready = wait(list(running), timeout=1.0)
            for pipe, (child, mutant, began) in list(running.items()):
                spent = time.monotonic() - began
                if pipe in ready:
                    verdict = _received(pipe) or {"verdict": "killed", "by": "crash"}
                elif spent > seconds:
                    child.kill()
                    verdict = {"verdict": "hung", "by": "time limit"}
                else:
                    continue
                child.join()
                pipe.close()
                del running[pipe]
                yield mutant, {**verdict, "seconds": round(spent, 2)}
    finally:
        for child, _, _ in running.values():
            child.kill()


def unchanged(folder: Path, files: Sequence[str], watched: Collection[str]) -> dict[str, Any]:
    """Run the tests without any change.

    Args:
        folder: where copies of the package and its tests lie.
        files: of tests.
        watched: files of the package.

    Returns:
        seconds: that all of them take, and a little for watching; failed: tests; took: by test, its
        seconds; reached: by test, the "file function" in watched files that it gets to.
    """
    began = time.monotonic()
    pipe, child = _forked(_run_unchanged, folder, files, watched)
    try:
        told = _received(pipe)
    finally:
        child.kill()
    if told is None:
        sys.exit("the tests crash without any change")
    return {"seconds": round(time.monotonic() - began, 1), **told}


def _forked(function: Callable[..., None], *arguments: object) -> tuple[Connection, Any]:
    """Start a function in a child; it gets a pipe to answer with as its first argument."""
    for name in LOADED_ONCE:
        importlib.import_module(name)
    assert "guidon" not in sys.modules, "children must load the package themselves"
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=function, args=(theirs, *arguments))
    child.start()
    theirs.close()
    return ours, child


def _received(pipe: Connection) -> dict[str, Any] | None:
    try:
        return dict(pipe.recv())
    except EOFError:  # it died without an answer
        return None


def _run_unchanged(pipe: Connection, folder: Path, files: Sequence[str], watched: Collection[str]) -> None:
    _settle(folder)
    watch, reach = _Watch(), _Reach(folder, watched)
    _pytest(["--continue-on-collection-errors", *files], watch, reach)
    pipe.send({"failed": watch.failed, "took": watch.took, "reached": reach.told()})


def _try(pipe: Connection, mutant: Mutant, folder: Path, plan: Plan) -> None:
    _settle(folder)
    module = "guidon." + mutant.file.removesuffix(".py").replace("/", ".")
    sys.meta_path.insert(0, _Changed(module, folder / PACKAGE / mutant.file, mutant.source))
    for group in plan:
        watch = _Watch(group)
        code = _pytest(["-x", *dict.fromkeys(test.partition("::")[0] for test in group)], watch)
        if code != pytest.ExitCode.OK:
            pipe.send({"verdict": "killed", "by": watch.failed[0] if watch.failed else f"pytest: {code!s}"})
            return
    pipe.send({"verdict": "survived", "by": "" if plan else "no test gets there"})


def _settle(folder: Path) -> None:
    """Make this process a quiet one that works on the copies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.chdir(folder)
    sys.path.insert(0, str(folder / "src"))


def _pytest(arguments: Sequence[str], *plugins: object) -> int | pytest.ExitCode:
    always = ["-q", "-p", "no:cacheprovider", "--tb=no", "--assert=plain", "-o", "addopts=--strict-markers"]
    return pytest.main([*always, *arguments], plugins)


def _forget_results() -> None:
    """Empty the caches of functions in the package."""
    for name, module in list(sys.modules.items()):
        if name.startswith("guidon."):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


class _Changed(importlib.machinery.SourceFileLoader):
    """Finds and loads one module, with another source than its file has."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        super().__init__(name, str(path))
        self.source = source

    def get_code(self, fullname: str) -> Any:
        return compile(self.source, self.path, "exec", dont_inherit=True)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None
        )


class _Watch:
    """A plugin of pytest that notes which tests fail; it keeps those named, in their order, or all where none is."""

    def __init__(self, kept: Sequence[str] = ()) -> None:
        self.kept = {test: place for place, test in enumerate(kept)}
        self.failed, self.took = list[str](), dict[str, float]()

    def pytest_configure(self) -> None:
        # one failure is enough: hypothesis need not look for a smaller one
        settings.register_profile("mutants", settings.default, phases=(Phase.explicit, Phase.generate))
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # should the change rename every test of a file, all of them run
        kept = [item for item in items if item.nodeid in self.kept]
        items[:] = sorted(kept, key=lambda item: self.kept[item.nodeid]) or items

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.took[report.nodeid] = round(report.duration, 4)
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


class _Reach:
    """A plugin of pytest that notes which functions each test calls.

    What is called while a file is loaded, or by a fixture, counts for every test of the file.
    """

    def __init__(self, folder: Path, watched: Collection[str]) -> None:
        self.watched = {str(folder / PACKAGE / file): file for file in watched}
        self.by_test: dict[str, set[CodeType]] = {}
        self.by_file: dict[str, set[CodeType]] = {}
        self.now: set[CodeType] = set()

    def told(self) -> dict[str, list[str]]:
        """Return, by test, "file function" for each function of the watched files."""
        return {
            test: sorted({self._name(code) for code in codes | self.by_file[test.partition("::")[0]]} - {""})
            for test, codes in self.by_test.items()
        }

    def _name(self, code: CodeType) -> str:
        file, function = self.watched.get(code.co_filename, ""), code.co_qualname.partition(".<locals>")[0]
        return f"{file} {function}" if file else ""

    @contextlib.contextmanager
    def _traced(self) -> Iterator[set[CodeType]]:
        called: set[CodeType] = set()
        self.now = called
        sys.settrace(self._call)
        try:
            yield called
        finally:
            sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: object) -> None:
        self.now.add(frame.f_code)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, Any]:
        with self._traced() as called:
            report = yield
        self.by_file.setdefault(collector.nodeid.partition("::")[0], set()).update(called)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        with self._traced() as called:
            result = yield
        self.by_file[item.nodeid.partition("::")[0]].update(called)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        _forget_results()  # or a test would not be seen to get to what one before it has worked out
        with self._traced() as called:
            result = yield
        self.by_test[item.nodeid] = called
        return result
