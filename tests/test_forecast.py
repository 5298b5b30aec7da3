"""Claim: `--dry-run --hardware` multiplies out what its rows say, names its assumption as one, knows cards by their data
sheets and by what drivers call them, and refuses in one line what it cannot answer.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from apps.common import command_line, dry_run, forecast, hardware, recipes, speed
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.forecast import Asked


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[dict, str]:
    """The JSON and the text of a dry run."""
    request = command_line.parse("pretrain", [*argv, "--dry-run", "--json"])
    assert dry_run.show(request, Console(json=True)) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


@pytest.mark.parametrize("card", hardware.TABLE, ids=lambda card: card.name)
def test_every_card_is_found_by_its_name_and_its_drivers(card: hardware.Hardware) -> None:
    assert hardware.named(card.name.upper()) is card
    assert hardware.of_device(f"NVIDIA GeForce {card.device}") is card
    assert card.memory >= 8 * 2**30
    assert card.flops("fp32") < (card.bf16 or float("inf"))


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Tesla T4", "t4"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GeForce RTX 3050 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3060 Ti", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA T400", None),
        ("", None),
    ],
)
def test_a_like_name_is_not_the_card(driver: str, name: str | None) -> None:
    found = hardware.of_device(driver)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--dry-run", "--hardware", "rtx309"], ["'rtx309'", "rtx3090"]),
        (["--dry-run", "--hardware", "abacus"], ["'abacus'", "rtx3050", "h200", "cpu"]),
        (["--dry-run", "--hardware"], ["--hardware", "NAME"]),
        (["--hardware", "t4"], ["--hardware", "--dry-run"]),
        (["--dry-run", "--hardware", "t4", "--device", "cpu"], ["--hardware", "--device"]),
        (["--dry-run", "--price", "1"], ["--price", "--hardware"]),
        (["--dry-run", "--mfu", "0.3"], ["--mfu", "--hardware"]),
        (["--dry-run", "--hardware", "t4", "--price", "-1"], ["--price", "-1"]),
        (["--dry-run", "--hardware", "t4", "--mfu", "30"], ["--mfu", "30"]),
        (["--dry-run", "--hardware", "t4", "--mfu", "nan"], ["--mfu", "nan"]),
    ],
)
def test_what_cannot_be_answered_is_one_line(argv: list[str], words: list[str]) -> None:
    with pytest.raises(BadRequest) as caught:
        command_line.parse("pretrain", argv)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_card_without_bf16_trains_in_fp32_and_refuses_bf16() -> None:
    assert forecast.place_on(Asked("t4"), "auto").precision == "fp32"
    assert forecast.place_on(Asked("rtx3050"), "auto").precision == "bf16"
    with pytest.raises(BadRequest, match="t4 has no bf16"):
        forecast.place_on(Asked("t4"), "bf16")


def test_hours_and_cost_multiply_out(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("--recipe", "brandon-10m", "--hardware", "rtx3090", "--price", "1.5", "--mfu", "0.25", "--processes", "2")
    plan, text = shown(capsys, *argv)
    found = plan["forecast"]
    assert (plan["precision"], plan["device"], found["devices"]) == ("bf16", "cuda", 2)
    seconds = plan["total_flops"] / (2 * 71e12 * 0.25)
    assert found["hours"] == pytest.approx(seconds / 3600)
    assert found["tokens_per_second"] == pytest.approx(plan["tokens"] / seconds)
    assert found["cost"] == pytest.approx(1.5 * 2 * seconds / 3600)
    assert found["mfu"] == 0.25
    assert "as given by --mfu" in text
    assert "ASSUMED" not in text


def test_an_assumption_is_called_one_and_is_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    plan, text = shown(capsys, "--recipe", "brandon-10m", "--hardware", "h100")
    assert "ASSUMED for 256 channels" in text
    assert plan["forecast"]["mfu"] == hardware.assumed_mfu(989e12, 256)
    assert plan["forecast"]["cost"] is None
    for column in [*hardware.ASSUMED_MFU.values(), *hardware.CPU_MFU.values()]:
        assert list(column) == sorted(column, reverse=True), "a narrower model never reaches more"
    assert hardware.assumed_mfu(18e12, 1) < hardware.assumed_mfu(18e12, 95) * 1.01
    for width in hardware.WIDTHS:
        assert (
            hardware.assumed_mfu(18e12, width)
            > hardware.assumed_mfu(100e12, width)
            > hardware.assumed_mfu(989e12, width)
        )


def test_what_does_not_fit_says_so_with_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    plan, text = shown(capsys, "--recipe", "brandon-110m-v2", "--hardware", "rtx3050")
    found = plan["forecast"]
    assert not found["fits"]
    assert found["fits"] == (plan["memory"]["total"] <= found["memory_bytes"])
    assert "does NOT fit 8.0 GiB" in text
    again, text = shown(
        capsys, "--recipe", "brandon-110m-v2", "--hardware", "rtx3050", "--train.micro_batch", str(found["micro_batch"])
    )
    assert again["forecast"]["fits"]
    assert "does NOT fit" not in text


def test_a_budget_in_a_dry_run_is_the_micro_batch_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    plan, _ = shown(capsys, "--recipe", "brandon-10m", "--hardware", "rtx4090", "--memory", "6GiB")
    assert plan["memory"]["total"] <= 6 * 2**30
    more, _ = shown(capsys, "--recipe", "brandon-10m", "--hardware", "rtx4090", "--memory", "20GiB")
    assert more["micro_batch"] > plan["micro_batch"]


def test_this_cpu_is_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_measured", lambda device, precision: 1e11)
    plan, text = shown(capsys, "--hardware", "cpu", "--price", "0")
    assert plan["device"] == "cpu"
    assert "measured here" in text
    width = recipes.load("demo").model.dim
    rate = 1e11 * hardware.assumed_mfu(None, width, "fp32") / (plan["total_flops"] / plan["tokens"])
    assert plan["forecast"]["tokens_per_second"] == pytest.approx(rate)
    assert plan["forecast"]["cost"] == 0


def test_a_log_line_uses_the_same_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce RTX 3090")
    peak = speed.Peak(torch.device("cuda"), "bf16")
    assert (peak.flops, peak.source) == (71e12, "data sheet")


def test_the_page_has_the_tables() -> None:
    page = (Path(__file__).parents[1] / "docs" / "fit.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    for card in hardware.TABLE:
        bf16 = "none" if card.bf16 is None else f"{card.bf16 / 1e12:g}"
        assert [card.name, f"{card.memory / 2**30:.1f} GiB", bf16, f"{card.fp32 / 1e12:g}"] in rows
    for shares in [*hardware.ASSUMED_MFU.values(), *hardware.CPU_MFU.values()]:
        assert [f"{share:.1%}" for share in shares] in [row[1:] for row in rows]
