"""How the whole suite runs: `--full` adds what is slow, and under it nothing may be skipped.

A whole `--full` run also holds docs/support.md against what its tests did; `--support FILE` writes that page, by the
tests that state something for it alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from .support import FIXTURE, PROPERTY, Shown, page

# Two test processes on two cores: threads of the numeric libraries would only take turns.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# Set by the package as well; here for tests that load a library before the package.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the tests marked full too; a skipped test is a failure")
    parser.addoption("--support", type=Path, help="with --full: run what states something, and write it to this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--support"):
        _keep(config, items, lambda item: FIXTURE in getattr(item, "fixturenames", ()))
    if not config.getoption("--full"):
        _keep(config, items, lambda item: item.get_closest_marker("full") is None)


def _keep(config: pytest.Config, items: list[pytest.Item], wanted: Callable[[pytest.Item], bool]) -> None:
    left_out = [item for item in items if not wanted(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if wanted(item)]


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped under --full, where every tool must be present: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    if item.config.getoption("--full"):
        _refuse_skip(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, None]:
    outcome = yield
    if collector.config.getoption("--full"):
        _refuse_skip(outcome.get_result())


@pytest.fixture
def shown(record_property: Callable[[str, object], None]) -> Callable[[Shown], None]:
    """Return a function by which a test states what it did, for docs/support.md."""
    return lambda what: record_property(PROPERTY, what.to_text())


class _Page:
    """Gathers what passed tests state; in the process that sees all reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.found: list[Shown] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.found += [Shown.from_text(str(text)) for name, text in report.user_properties if name == PROPERTY]

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        options = self.config.option
        if not _is_whole(self.config) or exitstatus:
            return
        from infimed.runtime.levels import LEVELS

        made = page(self.found, [row.name for row in LEVELS])
        if options.support:
            options.support.write_text(made, "utf-8")
        elif not (kept := self.config.rootpath / "docs" / "support.md").is_file() or kept.read_text("utf-8") != made:
            reporter = self.config.pluginmanager.get_plugin("terminalreporter")
            reporter.write_line("docs/support.md is not what the tests did; write it: ./dev test --full --support FILE")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_whole(config: pytest.Config) -> bool:
    """Whether every test that states something is among those that run."""
    options = config.option
    chosen = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf")
    narrowed = any(getattr(options, name, None) for name in chosen)
    return bool(options.full and config.args == config.getini("testpaths") and not narrowed)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # a worker, whose reports its controller sees
        return
    if config.getoption("--support") and not _is_whole(config):
        raise pytest.UsageError("--support FILE needs --full and no other choice of tests: the page is of all of them")
    config.pluginmanager.register(_Page(config), "support page")
