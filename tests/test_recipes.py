"""Every recipe is what it says: exact parameter counts, strict keys, one line for every mistake, exact round trips.

Counts are held against the numbers of the published family and against the tensors of the built model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tinycore
from apps.common import overrides, recipes, strict_yaml
from apps.common.data_config import FilesSource
from apps.common.errors import BadRequest
from apps.common.recipe import Cosine, WarmupStableDecay
from tinycore import ConfigError
from tinycore.ffns.moe import MixtureOfExperts
from tinycore.linears.bit import Bit

COUNTS = {
    "brandon-226k": 227_280,
    "brandon-226k-v2": 233_784,
    "brandon-900k": 990_072,
    "brandon-10m-v1": 9_663_264,
    "brandon-10m": 10_705_152,
    "brandon-10m-mtp": 10_902_528,
    "mod-10m": 10_906_392,
    "budget-10m": 10_711_064,
    "early-exit-10m": 10_705_152,
    "slots-10m": 10_848_528,
    "resonance-10m": 10_774_793,
    "factorised-10m": 10_583_296,
    "blt-10m": 10_833_345,
    "jepa-10m": 10_901_761,
    "hope-10m": 10_543_968,
    "nanosilhouette-nano-hybrid": 50_243_072,
    "brandon-30m-v1": 30_518_208,
    "brandon-30m": 29_993_856,
    "brandon-110m-v1": 109_529_856,
    "brandon-110m-v2": 111_364_416,
    "denseformer-10m": 10_705_476,
    "gated-10m": 10_711_296,
    "scaled-10m": 10_705_200,
    "parallel-10m": 10_702_080,
    "cms-10m": 10_711_296,
    "experts-10m": 10_903_296,
    "moe-10m": 20_670_720,
    "relu2-10m": 10_705_152,
    "nanosilhouette-nano": 51_031_553,
    "nanosilhouette-micro": 125_759_232,
    "nanosilhouette-small": 351_329_280,
    "titans-10m": 10_776_188,
    "matmulfree-10m": 10_627_328,
    "hybridnorm-10m": 10_703_232,
    "fanformer-10m": 10_732_032,
    "cola-10m": 10_896_768,
    "bitnet-10m": 38_613_504,
    "jamba-moe-10m": 18_609_232,
    "muon-10m": 10_705_152,
    "brandon-10m-optimal": 10_706_776,
    "brandon-110m-v3": 110_925_282,
    "code-early": 918_656,
    "mix-seed": 918_656,
    "reasoning-demo": 918_656,
    "curriculum-1m": 1_049_984,
    "mix-brandon": 10_706_776,
    "pretrain-textbook-cot": 10_705_152,
    "smollm2-phases": 134_515_008,
    "trm-sudoku-4x4": 222_530,
    "trm-sudoku-6x6": 222_914,
    "trm-sudoku-att": 6_828_034,
    "trm-sudoku-mlp": 5_028_866,
    "trm-arc": 6_829_058,
    "trm-math": 7_340_032,
    "kitsun-92m": 93_316_488,
    "kitsun-82m": 83_682_696,
    "kitsun-87m": 88_541_184,
    "kitsun-base": 232_016_640,
    "speed-cpu": 5_205_248,
    "gpu-4gb": 30_519_552,
    "gpu-8gb": 88_101_120,
    "gpu-t4": 88_101_120,
    "gpu-12gb": 140_293_120,
    "gpu-24gb": 287_363_072,
    "gpu-2x24gb": 287_363_072,
}

CLAIMS = {"kitsun-92m": 92.2e6, "kitsun-82m": 82.2e6, "kitsun-87m": 86.2e6, "kitsun-base": 236e6}

# the blueprint's larger models: width, layers, heads, period; a feed-forward of 8/3 in every layer or after attention alone
LARGER = {
    "medium": (2048, 32, 32, 6, True, 1_915_672_576),
    "medium, feed-forwards after attention": (2048, 32, 32, 6, False, 1_002_569_728),
    "large": (4096, 32, 32, 4, True, 7_300_780_032),
    "XL": (8192, 80, 64, 4, True, 71_878_647_808),
}


def override(*pairs: tuple[str, str]) -> list[overrides.Override]:
    return [overrides.read(key, value) for key, value in pairs]


def test_the_family_and_the_demo_are_there() -> None:
    assert recipes.names()[0] == "demo"
    assert set(COUNTS) <= set(recipes.names())


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_exact_and_the_model_has_them(name: str) -> None:
    config = recipes.load(name).model
    with torch.device("meta"):
        model = tinycore.build(config)
    tensors = {id(tensor): tensor.numel() for tensor in model.parameters()}
    assert sum(tensors.values()) == tinycore.count(config).parameters == COUNTS[name]


@pytest.mark.parametrize("name", CLAIMS)
def test_kitsuns_models_are_near_what_they_claim(name: str) -> None:
    assert COUNTS[name] == pytest.approx(CLAIMS[name], rel=0.03)


def cola(inputs: int, outputs: int, rank: int) -> int:
    return rank * (inputs + outputs) + outputs


def cola_fan(inputs: int, outputs: int, rank: int) -> int:
    pairs = int(0.15 * outputs)
    return 2 * inputs * rank + rank * pairs + (rank + 1) * (outputs - 2 * pairs)


@pytest.mark.parametrize(
    ("name", "qkv", "tied"), [("92m", cola_fan, False), ("82m", cola_fan, True), ("87m", cola, False)]
)
def test_kitsuns_counts_are_their_closed_form(name: str, qkv: Callable[[int, int, int], int], tied: bool) -> None:
    """12 query heads of 64 over 6 key/value heads, added up by hand."""
    attention = qkv(768, 768, 192) + 2 * qkv(768, 384, 192) + cola(768, 768, 192)
    feed_forward = 2 * cola(768, 2048, 168) + cola(2048, 768, 512)
    small = 3 * 64 + 768 + 2 * 768  # norms of heads, of the feed-forward, gates of both branches
    head = 0 if tied else cola(768, 49_152, 192)
    assert 49_152 * 768 + 12 * (attention + feed_forward + small) + 768 + head == COUNTS[f"kitsun-{name}"]


def test_bitnets_ternary_weights_are_packed_in_two_bits_each() -> None:
    """8.2 MiB; the embedding, which is the head as well, beside them."""
    config = recipes.load("bitnet-10m").model
    with torch.device("meta"):
        model = tinycore.build(config)
    ternary = sum(module.weight.numel() for module in model.modules() if isinstance(module, Bit))
    assert ternary == 34_406_400
    assert COUNTS["bitnet-10m"] - ternary == 8192 * 512 + 25 * 512
    packed = tinycore.surgery.pack(model)
    codes = [tensor for name, tensor in packed.state_dict().items() if tensor.dtype == torch.uint8]
    assert sum(tensor.numel() for tensor in codes) == ternary // 4 == 8_601_600 < 8.5 * 2**20


def test_the_experts_that_compute_a_token_of_jamba_are_two_of_eight() -> None:
    config = recipes.load("jamba-moe-10m").model
    mixtures = [layer.ffn for layer in config.flat_layers() if isinstance(layer.ffn, MixtureOfExperts.Config)]
    assert [index for index, layer in enumerate(config.flat_layers()) if layer.ffn in mixtures] == [1, 3, 5, 7]
    idle = sum((ffn.experts - ffn.active) * 3 * 256 * 432 for ffn in mixtures)
    assert COUNTS["jamba-moe-10m"] - idle == 10_646_608


@pytest.mark.parametrize("name", LARGER)
def test_larger_hybrids_have_the_counts_that_their_shapes_give(name: str) -> None:
    """Of the claimed 1.3B, 7B and 70B; as tensors on the meta device as well."""
    dim, depth, heads, period, everywhere, expected = LARGER[name]
    layers = []
    for index in range(depth):
        attends = index % period == period // 2
        mixer = {"kind": "attention", "heads": heads, "kv_heads": heads // 4} if attends else {"kind": "mamba"}
        layers.append({"mixer": mixer, **({"ffn": {"kind": "swiglu"}} if everywhere or attends else {})})
    config = tinycore.ModelConfig.from_dict({"vocab_size": 32768, "dim": dim, "max_seq_len": 2048, "layers": layers})
    with torch.device("meta"):
        model = tinycore.build(config)
    assert sum(tensor.numel() for tensor in model.parameters()) == tinycore.count(config).parameters == expected


@pytest.mark.parametrize("name", recipes.names())
def test_round_trips_through_plain_data_and_yaml(name: str) -> None:
    recipe = recipes.load(name)
    assert recipes.from_dict(recipes.to_dict(recipe)) == recipe
    assert recipes.from_dict(strict_yaml.parse(recipes.to_yaml(recipe), name)) == recipe


@pytest.mark.parametrize("name", recipes.names())
def test_accumulation_is_whole_on_one_and_two_processes(name: str) -> None:
    recipe = recipes.load(name)
    for processes in (1, 2):
        rows = recipe.micro_batch(processes) * recipe.accumulation(processes) * processes
        assert rows == recipe.train.batch_size
        assert recipe.micro_batch(processes) * recipe.data.positions <= 16_384


def test_a_vocabulary_of_null_is_the_tokenizers() -> None:
    recipe = recipes.load("demo", override(("data.tokenizer.vocab_size", "777")))
    assert recipe.model.vocab_size == 777


def test_overrides_reach_the_written_list_and_numbers_are_numbers() -> None:
    recipe = recipes.load(
        "demo",
        override(
            ("model.layers.0.mixer.kv_heads", "1"),
            ("optim.learning_rate", "3e-4"),
            ("data.sources.1", "{kind: files, path: no}"),
        ),
    )
    assert all(layer.mixer.kv_heads == 1 for layer in recipe.model.flat_layers())  # ty: ignore[unresolved-attribute]
    assert recipe.optim.learning_rate == 3e-4
    assert recipe.data.sources[1] == FilesSource(path="no")


def test_choosing_a_kind_replaces_the_mapping_whatever_the_order() -> None:
    fields = ("optim.schedule.final", "0.5"), ("optim.schedule.warmup", "7")
    kind = ("optim.schedule.kind", "cosine")
    expected = Cosine(warmup=7, final=0.5)
    assert recipes.load("demo", override(kind, *fields)).optim.schedule == expected
    assert recipes.load("demo", override(*fields, kind)).optim.schedule == expected


def test_naming_the_kind_that_is_there_changes_nothing() -> None:
    assert recipes.load("demo", override(("optim.schedule.kind", "wsd"))) == recipes.load("demo")


def test_an_override_of_what_the_recipe_does_not_write_starts_from_the_default(tmp_path: Path) -> None:
    written = recipes.to_dict(recipes.load("demo"))["model"]
    file = tmp_path / "short.yaml"
    file.write_text(strict_yaml.dump({"model": {**written, "vocab_size": None}}))
    recipe = recipes.load(file, override(("data.sources.0.seed", "5"), ("optim.schedule.warmup", "3")))
    assert recipe.data.sources[0].seed == 5  # ty: ignore[unresolved-attribute]
    assert recipe.optim.schedule == WarmupStableDecay(warmup=3)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("trian.steps", "3", ["trian", "train"]),
        ("train.stepz", "3", ["train", "stepz", "steps"]),
        ("train.steps", "many", ["train.steps", "int"]),
        ("train.steps", "0", ["train.steps", "0"]),
        ("train.batch_size", "1.5", ["train.batch_size", "int"]),
        ("train.compile", "no", ["train.compile", "true or false"]),
        ("train.recompute", "cola", ["train.recompute", "low_rank"]),
        ("train.precision", "bf61", ["train.precision", "bf16"]),
        ("model.layers.0.mixer.kind", "atention", ["model.layers.0.mixer.kind", "attention"]),
        ("model.layers.0.mixer.heads", "3", ["model.layers.0.mixer", "3"]),
        ("model.layers.5.mixer.heads", "2", ["model.layers.5.mixer.heads", "list of 1"]),
        ("model.layers.x.mixer.heads", "2", ["model.layers.x.mixer.heads", "'x'"]),
        ("model.dim.deep", "2", ["model.dim", "deep"]),
        ("model.vocab_size", "512", ["model.vocab_size", "1024"]),
        ("data.sequence_length", "100000", ["data.sequence_length", "max_seq_len"]),
        ("data.sources", "[]", ["data.sources"]),
        ("data.sources.0.kind", "hib", ["data.sources.0.kind", "hub"]),
        ("data.validation", "0", ["data.validation"]),
        ("optim.betas", "[0.9]", ["optim.betas", "2"]),
        ("optim.schedule.kind", "wds", ["optim.schedule.kind", "wsd"]),
        ("sample.top_p", "2", ["sample.top_p"]),
    ],
)
def test_every_mistake_is_one_line_that_names_the_key(key: str, value: str, words: list[str]) -> None:
    with pytest.raises((ConfigError, BadRequest)) as caught:
        recipes.load("demo", override((key, value)))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(BadRequest, match="'brandon-10m'"):
        recipes.load("brandn-10m")


def too_deep() -> str:
    return "[" * 80 + "]" * 80


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: &x [1]\nb: *x", "anchors"),
        ("a: *x", "alias"),
        ("a: 1\na: 2", "twice"),
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("a: !!set {x}", "tag"),
        ("a: [1, 2", "line 1"),
        ("a: 1\n---\nb: 2", "document"),
        ("? [1, 2]\n: 3", "plain word"),
        ("[1, 2]", "list"),
        (too_deep(), "deeper"),
        ("a: " + "9" * 5000, "4300"),
        ("a: \x00", "special characters"),
    ],
)
def test_hostile_or_broken_yaml_is_one_line(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(BadRequest) as caught:
        strict_yaml.read(file)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def large(file: Path) -> None:
    file.write_bytes(b"a: 1\n" * 300_000)


def latin(file: Path) -> None:
    file.write_bytes("description: café".encode("latin-1"))


def folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize(("make", "word"), [(large, "larger"), (latin, "UTF-8"), (folder, "cannot be read")])
def test_unusable_files_are_one_line(tmp_path: Path, make: Callable[[Path], None], word: str) -> None:
    file = tmp_path / "recipe.yaml"
    make(file)
    with pytest.raises(BadRequest, match=word):
        recipes.read(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("010", 10),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("[a, 1, 2.5]", ["a", 1, 2.5]),
        ("{kind: files, path: x}", {"kind": "files", "path": "x"}),
        ("'5'", "5"),
        ("-7", -7),
        (".5", 0.5),
        ("<<", "<<"),
    ],
)
def test_values_mean_what_they_look_like(text: str, value: Any) -> None:
    parsed = strict_yaml.parse(text, "test")
    assert parsed == value
    assert type(parsed) is type(value)
