"""A checkpoint is the model, bit for bit, or one line that names the file and says what is wrong with it; nothing that
a stranger puts into a directory is executed, and nothing outside of it is read.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tinycore
from tinycore import CheckpointError, checkpoint, testing


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tinycore.save(tinycore.build(testing.stack()), tmp_path / "model")
    return tmp_path / "model"


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        tinycore.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message.replace(str(path), "DIR")


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def sealed(path: Path) -> Path:
    """As a stranger would leave it: with a manifest that agrees with whatever lies there."""
    checkpoint.write_manifest(path)
    return path


def test_saved_files_and_their_manifest(saved: Path) -> None:
    assert sorted(entry.name for entry in saved.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["format_version"] == checkpoint.FORMAT_VERSION
    assert set(manifest["files"]) == {"config.json", "model.safetensors"}
    assert json.loads((saved / "config.json").read_text())["model"] == testing.stack().to_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("tied", [True, False])
def test_load_gives_the_same_bits(tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    model = tinycore.build(testing.stack(embed={"tied": tied})).to(dtype)
    tinycore.save(model, tmp_path)
    loaded = tinycore.load(tmp_path)
    assert loaded.config == model.config
    for (name, tensor), (other, again) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other
        assert again.dtype == dtype
        assert torch.equal(tensor, again)
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in loaded.parameters())


def test_saving_over_an_older_checkpoint_replaces_it(saved: Path) -> None:
    other = tinycore.build(testing.stack(depth={"kind": "shared", "times": 2}))
    tinycore.save(other, saved)
    assert tinycore.load(saved).config == other.config


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_any_flipped_byte_is_found(saved: Path, name: str) -> None:
    data = bytearray((saved / name).read_bytes())
    for at in (0, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        (saved / name).write_bytes(changed)
        assert refusal(saved) == f"DIR/{name}: damaged, its SHA-256 differs from the manifest's"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_and_cut_off_files(saved: Path, name: str) -> None:
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[:-1])
    assert refusal(saved) == f"DIR/{name}: has {len(data) - 1} bytes, the manifest says {len(data)}"
    (saved / name).unlink()
    assert refusal(saved) == f"DIR/{name}: missing; the manifest lists it"


def test_directories_that_are_none(saved: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == "DIR: no such checkpoint directory"
    assert refusal(saved / "config.json") == "DIR: no such checkpoint directory"
    (saved / "manifest.json").unlink()
    assert "has no manifest.json: not a checkpoint, or one whose writing was cut off" in refusal(saved)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("\xff\xfe", "not readable as JSON"),
        ("[" * 200_000, "not readable as JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "has no format_version"),
        ('{"format_version": "1"}', "has no format_version"),
        ('{"format_version": 1}', "does not list config.json and model.safetensors"),
        ('{"format_version": 1, "files": []}', "does not list config.json and model.safetensors"),
        (
            '{"format_version": 1, "files": {"config.json": {}}}',
            "does not list config.json and model.safetensors",
        ),
        (
            '{"format_version": 1, "files": {"config.json": 1, "model.safetensors": 2}}',
            "bad entry 'config.json'",
        ),
    ],
)
def test_manifests_that_are_none(saved: Path, text: str, says: str) -> None:
    (saved / "manifest.json").write_bytes(text.encode("latin-1"))
    assert says in refusal(saved)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/file", "..", ".", "", "a\0b", "C:\\x/../y"])
def test_a_manifest_cannot_point_outside(saved: Path, name: str) -> None:
    (saved.parent / "secret").write_text("x")
    edit(
        saved / "manifest.json",
        lambda document: document["files"].update({name: {"bytes": 1, "sha256": "0"}}),
    )
    message = refusal(saved)
    assert "bad entry" in message or "missing" in message
    assert "damaged" not in message, "its content was looked at"


def test_json_without_bound_is_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MAX_JSON_BYTES", 2**20)
    (saved / "manifest.json").write_bytes(b" " * (2**20 + 1))
    assert refusal(saved) == "DIR/manifest.json: larger than 1 MiB"


def test_newer_formats_are_refused_and_say_what_to_do(saved: Path) -> None:
    ours = checkpoint.FORMAT_VERSION
    newer = ours + 1
    expected = f"format version {newer} is newer than this tinycore reads ({ours}); update tinycore"
    edit(saved / "config.json", lambda document: document.update(format_version=newer))
    assert refusal(sealed(saved)) == f"DIR/config.json: {expected}"
    edit(saved / "manifest.json", lambda document: document.update(format_version=newer))
    assert refusal(saved) == f"DIR: {expected}"


def test_older_formats_are_migrated_version_by_version(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version n called `dim` "width", version n + 1 "size"; this one calls it "dim"."""
    oldest = checkpoint.FORMAT_VERSION

    def write_old(document: dict[str, Any]) -> None:
        document["model"]["width"] = document["model"].pop("dim")

    def renamed(old: str, new: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def migrate(document: dict[str, Any]) -> dict[str, Any]:
            model = {new if key == old else key: value for key, value in document["model"].items()}
            return {**document, "model": model}

        return migrate

    edit(saved / "config.json", write_old)
    sealed(saved)
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", oldest + 2)
    assert refusal(saved) == f"DIR/config.json: format version {oldest} is no longer readable"
    monkeypatch.setitem(checkpoint.MIGRATIONS, oldest, renamed("width", "size"))
    monkeypatch.setitem(checkpoint.MIGRATIONS, oldest + 1, renamed("size", "dim"))
    assert tinycore.load(saved).config == testing.stack()


@pytest.mark.parametrize("version", [None, "1", -1, 1.0])
def test_configs_without_a_version(saved: Path, version: object) -> None:
    edit(saved / "config.json", lambda document: document.update(format_version=version))
    assert refusal(sealed(saved)) == "DIR/config.json: has no format_version"


def test_weights_of_another_architecture(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")

    def with_tensors(changed: dict[str, torch.Tensor]) -> str:
        save_file(changed, saved / "model.safetensors")
        return refusal(sealed(saved)).removeprefix("DIR/model.safetensors: ")

    missing = {name: tensor for name, tensor in tensors.items() if name != "norm.weight"}
    assert with_tensors(missing) == "tensor 'norm.weight' is missing; the weights are of another architecture"
    assert (
        with_tensors({**tensors, "extra": torch.zeros(1)})
        == "unexpected tensor 'extra'; the weights are of another architecture"
    )
    narrow = {**tensors, "norm.weight": torch.zeros(3)}
    assert with_tensors(narrow) == "tensor 'norm.weight' has shape (3,), the config says (16,)"
    whole = {**tensors, "norm.weight": torch.zeros(16, dtype=torch.long)}
    assert with_tensors(whole) == "tensor 'norm.weight' is torch.int64, expected floating point"


@pytest.mark.parametrize(
    "change, says",
    [
        ({"dim": 15}, "model.layers.0.mixer.heads: 4 does not divide dim 15"),
        ({"nonsense": 1}, "model: unknown key 'nonsense'"),
        ({"dim": 2**40}, "no such model can be built"),
        ({"dim": 4 * 10**400}, "no such model can be built"),
        ({"max_seq_len": None}, "model.max_seq_len: expected int"),
    ],
)
def test_configs_that_cannot_be_built(saved: Path, change: dict[str, Any], says: str) -> None:
    edit(saved / "config.json", lambda document: document["model"].update(change))
    assert says in refusal(sealed(saved))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_pickle_is_never_loaded(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (saved / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    assert "not a readable safetensors file" in refusal(sealed(saved))
    torch.save({"embed.weight": torch.zeros(2)}, saved / "model.safetensors")
    assert "not a readable safetensors file" in refusal(sealed(saved))
    assert not (tmp_path / "exploded").exists()


def test_further_files_are_covered_by_the_manifest(saved: Path) -> None:
    (saved / "tokenizer.json").write_text("{}")
    sealed(saved)
    tinycore.load(saved)
    (saved / "tokenizer.json").write_text("[]")
    assert refusal(saved) == "DIR/tokenizer.json: damaged, its SHA-256 differs from the manifest's"


def test_a_save_that_is_cut_off_leaves_no_manifest(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest goes first and comes last: what lies between is never taken for a checkpoint."""

    def fails(*arguments: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fails)
    with pytest.raises(OSError):
        tinycore.save(tinycore.build(testing.stack()), saved)
    assert "writing was cut off" in refusal(saved)


def test_loaded_tensors_are_aligned_as_built_ones_are(tmp_path: Path) -> None:
    """A product of one row reads an unaligned matrix in another order: the loaded model would give other bits."""
    model = tinycore.build(testing.stack())
    tinycore.save(model, tmp_path)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in tinycore.load(tmp_path).state_dict().values())
