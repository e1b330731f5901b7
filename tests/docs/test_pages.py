"""What the pages name is there: links and anchors, commands and their options; figures stand twice only if equal."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from image_files import read_array

from nnunet_covid.cli import SUBCOMMANDS, build_parser, main

REPOSITORY = Path(__file__).resolve().parents[2]
LISTED = "docs/reference/bad-inputs.md"
"""Made of commands that are wrong."""
PAGES = {
    str(file.relative_to(REPOSITORY)): file.read_text(encoding="utf-8")
    for file in [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """Of the headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", without_code(PAGES[page]), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def targets(page: str) -> list[tuple[Path, str]]:
    """File and anchor of every link that stays in the repository."""
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(PAGES[page]))
    parts = [link.partition("#") for link in links if "://" not in link]
    here = REPOSITORY / page
    return [((here.parent / file).resolve() if file else here, anchor) for file, _, anchor in parts]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_anchor_resolves(page: str) -> None:
    dead = [f"{file.name}#{anchor}" for file, anchor in targets(page) if not file.exists()]
    for file, anchor in targets(page):
        if anchor and file.exists() and anchor not in anchors(str(file.relative_to(REPOSITORY))):
            dead.append(f"{file.name}#{anchor}")
    assert dead == []


def test_every_page_and_picture_is_linked() -> None:
    linked = {file for page in PAGES for file, _ in targets(page)} | {REPOSITORY / "README.md"}
    there = {REPOSITORY / page for page in PAGES} | set((REPOSITORY / "docs/images").iterdir())
    assert sorted(there - linked) == []


@cache
def options(command: str) -> frozenset[str]:
    """Of ``nnunet-covid COMMAND``."""
    (subcommands,) = [a for a in build_parser(command)._actions if isinstance(a, argparse._SubParsersAction)]
    return frozenset(name for action in subcommands.choices[command]._actions for name in action.option_strings)


@cache
def conversion_options(name: str) -> frozenset[str]:
    """Of ``nnunet-covid convert NAME``, whose parser is made when its name is known."""
    with pytest.MonkeyPatch.context() as patch:
        helped: list[str] = []
        patch.setattr(
            argparse.ArgumentParser, "print_help", lambda parser: helped.extend(parser._option_string_actions)
        )
        with pytest.raises(SystemExit):
            main(["convert", name, "--help"])
    return frozenset(helped)


def commands(page: str) -> list[list[str]]:
    """The words behind ``nnunet-covid`` of every command in the page's blocks and sentences that has options."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGES[page].replace("\\\n", " "), flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in re.split(r"\n|&&|;", block)]
    lines += re.findall(r"`([^`\n]*)`", without_code(PAGES[page]))
    found = [re.match(r"(?:\S*/)?nnunet-covid (.*)", line.strip()) for line in lines]
    words = [shlex.split(match[1], comments=True) for match in found if match]
    return [each for each in words if each and re.fullmatch(r"[a-z-]+", each[0])]


@pytest.mark.parametrize("page", [page for page in PAGES if page != LISTED and commands(page)])
def test_every_command_and_option_exists(page: str) -> None:
    wrong = []
    for command, *words in commands(page):
        if command not in SUBCOMMANDS:
            wrong.append(command)
            continue
        if command == "convert" and words[0] in ("…", "NAME"):
            words[0] = "folder"
        conversion = command == "convert" and not words[0].startswith("-")
        known = conversion_options(words[0]) if conversion else options(command)
        wrong += [f"{command} {word}" for word in words if re.match(r"--?[a-z]", word) and word not in known]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_scripts_of_the_pages_have_the_options_they_are_given(page: str) -> None:
    wrong = []
    for line in re.findall(r"^.*python benchmarks/.*$", PAGES[page].replace("\\\n", " "), flags=re.MULTILINE):
        script, rest = re.findall(r"python (benchmarks/[\w/]+\.py)([^#`]*)", line)[0]
        text = (REPOSITORY / script).read_text(encoding="utf-8")
        given = re.findall(r" (--?[a-z][\w-]*)", rest)
        wrong += [f"{script} {name}" for name in given if not re.search(rf'"({name}|{name.lstrip("-")})"', text)]
    assert wrong == []


def test_the_figures_against_stock_are_those_of_the_accuracy_page() -> None:
    rows = re.findall(
        r"^\| `(\w+)`.*\| (?:\*\*)?([+−]\d\.\d+)(?:\*\*)? \((.*?)\)(.*)$", PAGES["README.md"], flags=re.MULTILINE
    )
    whole, half = PAGES["docs/explanation/accuracy.md"].split("\n## ")[1:3]
    assert len(rows) >= 6
    for trainer, difference, interval, where in rows:
        table = half if "half that resolution" in where else whole
        (row,) = re.findall(rf"^\| `{trainer}`.*\| [1-5] of 5 \|$", table, flags=re.MULTILINE)
        assert f"{difference}" in row, trainer
        assert f"| {interval} |" in row, trainer


def test_the_synthetic_slices_are_those_of_the_generator(tmp_path: Path) -> None:
    runpy.run_path(str(REPOSITORY / "docs/draw_synthetic_slices.py"))["draw"](tmp_path / "drawn.png")
    drawn, shown = (
        read_array(file) for file in (tmp_path / "drawn.png", REPOSITORY / "docs/images/synthetic_slices.png")
    )
    assert drawn.shape == shown.shape
    assert np.abs(drawn.astype(int) - shown).mean() < 2, "draw them again: python docs/draw_synthetic_slices.py"
