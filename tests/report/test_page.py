"""``report.html`` in a real browser: the slider moves, the overlay switches, nothing comes from outside, it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import SimpleITK as sitk
from box_chest import CLASSES, box_chest

from nnunet_covid.report import quantify
from nnunet_covid.report.document import Document, ModelFacts, ScanFacts
from nnunet_covid.report.page import Pictures, _change, page

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
PROBE = """<script>
const seen = [], picture = document.getElementById("picture"), overlay = document.getElementById("overlay");
const note = () => seen.push([picture.src.length, overlay.hidden, document.getElementById("number").textContent]);
addEventListener("load", () => {
  note();
  slider.value = 3; slider.dispatchEvent(new Event("input")); note();
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowUp"})); note();
  document.getElementById("switch").click(); note();
  const outside = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length;
  setTimeout(() => {
    const drawn = [...document.images].every(image => image.complete && image.naturalWidth > 0);
    document.title = JSON.stringify([seen, outside, drawn]);
  }, 500);
});
</script>"""


def browse(profile: Path, *arguments: str) -> str:
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=120
    ).stdout


@needs_chromium
def test_slider_keys_and_switch_work_and_nothing_is_loaded(reported: Path, tmp_path: Path) -> None:
    probed = tmp_path / "probed.html"
    probed.write_text(
        (reported / "report.html").read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8"
    )
    title = re.search(
        r"<title>(.*?)</title>", browse(tmp_path / "p", "--virtual-time-budget=5000", "--dump-dom", probed.as_uri())
    )
    assert title is not None
    seen = re.findall(r'\[(\d+),(true|false),"slice (\d+)"\]', title.group(1))
    assert len(seen) == 4, title.group(1)
    assert [int(number) for _, _, number in seen[1:]] == [4, 5, 5]
    assert all(int(length) > 200 for length, _, _ in seen)
    assert [hidden for _, hidden, _ in seen] == ["false", "false", "false", "true"]
    assert title.group(1).endswith(",0,true]")


@pytest.mark.parametrize(("without", "parts"), [((), "lobes"), ((4,), "lobes"), (None, "zones")])
def test_the_coronal_view_is_headed_by_the_parts_that_are_drawn(without: tuple[int, ...] | None, parts: str) -> None:
    """After a lobectomy, too, which leaves no score of five lobes."""
    chest = box_chest()
    lobes = None if without is None else sitk.ChangeLabel(chest.lobes, dict.fromkeys(without, 0))
    numbers = quantify(chest.image, chest.labels, CLASSES, lungs=chest.lungs, lobes=lobes)
    model = ModelFacts("InfNetTrainer__nnUNetPlans__2d", "Dataset501", ("0",), tuple(CLASSES), "abc")
    document = Document.of(ScanFacts("chest", (80, 60, 48), (1.5, 2.0, 2.5)), model, numbers).as_json()
    assert f"Coronal view with {parts}<" in page(document, Pictures([], "", {}))


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.04, "±0.0 ml"), (0.04, "±0.0 ml"), (-0.06, "\N{MINUS SIGN}0.1 ml"), (2, "+2.0 ml")]
)
def test_a_change_that_rounds_to_nothing_has_no_direction(value: float, shown: str) -> None:
    assert _change(value, " ml") == shown


@needs_chromium
def test_it_prints_to_two_pages(reported: Path, tmp_path: Path) -> None:
    browse(
        tmp_path / "p",
        "--no-pdf-header-footer",
        f"--print-to-pdf={tmp_path / 'out.pdf'}",
        (reported / "report.html").as_uri(),
    )
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "out.pdf").read_bytes())) == 2
