"""Every wheel, installed alone into an empty environment, imports and works there.

Third-party packages come at exactly the versions and hashes of uv.lock (`uv export --format pylock.toml`),
from uv's cache where it is warm. Our own wheels come only from the folder they were built into, with no
index to fall back on: `tinydata` on PyPI is somebody else's. That install fails unless what the wheel's
metadata asks for is there, and the smoke test fails unless the metadata asked for everything that is
imported.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tinycore", "tinydata", "tinyeval", "tinykernels", "tinyreason")
pytestmark = pytest.mark.timeout(1200)  # on a cold cache torch is downloaded first

UNREACHABLE = ("failed to fetch", "error sending request", "dns error", "network is unreachable", "timed out")

SMOKE = {
    "tinycore": """
import torch, tinycore
config = tinycore.ModelConfig.from_dict({
    "vocab_size": 32, "dim": 16, "max_seq_len": 8,
    "layers": [{"repeat": 2, "mixer": {"kind": "attention", "heads": 2, "kv_heads": 1},
                "ffn": {"kind": "swiglu", "hidden": 24}}],
})
torch.manual_seed(0)
model = tinycore.build(config).eval()
tokens = torch.arange(8).view(1, 8)
model(tokens, targets=tokens.roll(-1, dims=1)).loss.backward()
assert tinycore.count(config).parameters == sum(p.numel() for p in model.parameters())
tinycore.save(model, "saved")
again = tinycore.load("saved").eval()
with torch.no_grad():
    assert torch.equal(model(tokens).logits, again(tokens).logits)
""",
    "tinydata": """
import numpy as np, tinydata
texts = [f"document {n} says {n * n} to number {n % 7}" for n in range(200)]
documents = [tinydata.Document(text, "smoke") for text in texts]
tokenizer = tinydata.train_tokenizer(documents, 400)
assert tokenizer.decode(tokenizer.encode(texts[3])) == texts[3]
tinydata.pack(documents, tokenizer, "shards")
shards = tinydata.ShardSet.open("shards", tokenizer_hash=tokenizer.hash)
assert shards.documents == 200 and shards.bytes == sum(len(text.encode()) for text in texts)
batch = next(iter(tinydata.Loader(shards, sequence_length=32, batch_size=2)))
assert batch.tokens.shape == batch.targets.shape == (2, 32)
within = batch.targets[:, :-1] != -100
assert np.array_equal(batch.targets[:, :-1][within], batch.tokens[:, 1:][within])
""",
    "tinyeval": """
import numpy as np, tinyeval
model = tinyeval.NgramModel.train([np.array([0, 1, 2, 0])], vocab_size=4, order=2)
assert 0 < tinyeval.bits_per_byte(model.bits([np.array([0, 1, 2])]), 2) < 2
assert tinyeval.word_coverage(["a b"], tinyeval.vocabulary(["A"])).share == 0.5
""",
    "tinykernels": """
import torch, tinykernels
x, weight = torch.randn(2, 5, 8, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
assert torch.allclose(
    tinykernels.rms_norm(x, weight, backend="torch"), tinykernels.rms_norm(x, weight, backend="naive")
)
""",
    "tinyreason": """
import tinyreason
assert tinyreason.Calculator()("1,234 * 2") == "2468"
""",
    "tiny-workbench": """
import sys
from apps.common import recipes
assert recipes.load("brandon-10m").model.dim == 256
sys.argv = ["pretrain", "--help"]
import runpy
try:
    runpy.run_module("apps.pretrain", run_name="__main__")
except SystemExit as stop:
    assert not stop.code
""",
}

LOCATION = """
import importlib.util, pathlib, sys
for name in {present!r}:
    spec = importlib.util.find_spec(name)
    assert spec and pathlib.Path(sys.prefix) in pathlib.Path(spec.origin).parents, (name, spec)
for name in {absent!r}:
    assert importlib.util.find_spec(name) is None, name
"""


class Uv:
    """uv as a user runs it, from the workspace's root but with none of this environment's settings."""

    def __init__(self, scratch: Path) -> None:
        program = os.environ.get("UV") or shutil.which("uv")
        if program is None:
            pytest.skip("uv is not on the path")
        self._program = program
        self._environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        cache = Path(self("cache", "dir").strip())
        if cache.exists() and cache.stat().st_dev != scratch.stat().st_dev:
            # From another disk uv would copy all of torch's gigabytes for every environment.
            self._environment["UV_LINK_MODE"] = "symlink"

    def __call__(self, *arguments: str | Path) -> str:
        """Run from the cache if it holds everything, else from the network; skip where neither can serve."""
        for offline in ("1", "0"):
            ran = subprocess.run(
                [self._program, *map(str, arguments)],
                cwd=ROOT,
                env={**self._environment, "UV_OFFLINE": offline},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
            )
            if ran.returncode == 0:
                return ran.stdout
        if any(sign in ran.stderr.lower() for sign in UNREACHABLE):
            pytest.skip(f"uv's cache lacks what `uv {arguments[0]}` needs and the network is out of reach")
        raise AssertionError(f"uv {' '.join(map(str, arguments))}\n{ran.stderr}")


@pytest.fixture(scope="module")
def uv(tmp_path_factory: pytest.TempPathFactory) -> Uv:
    return Uv(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def wheels(uv: Uv, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every project's wheel, built once: name -> file."""
    folder = tmp_path_factory.mktemp("wheels")
    uv("build", "--all-packages", "--wheel", "--out-dir", folder)
    return {path.name.partition("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}


@pytest.fixture
def empty_environment(uv: Uv, tmp_path: Path) -> Iterator[Path]:
    """A virtual environment without a single package; removed at once, for torch has many files."""
    environment = tmp_path / "environment"
    uv("venv", "--no-project", "--python", sys.executable, environment)
    yield environment
    shutil.rmtree(environment)


def test_every_project_has_a_wheel(wheels: dict[str, Path]) -> None:
    assert set(wheels) == set(SMOKE)


@pytest.mark.parametrize("package", [*PACKAGES, "tiny-workbench"])
def test_a_wheel_holds_every_file_of_its_source(package: str, wheels: dict[str, Path]) -> None:
    """Modules, py.typed, recipes, data: nothing is left behind, and nothing else is packed."""
    source = ROOT / "packages" / package / "src" / package if package in PACKAGES else ROOT / "apps"
    expected = {
        path.relative_to(source.parent).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheels[package]) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    assert packed == expected
    if package in PACKAGES:
        assert f"{package}/py.typed" in packed
    else:
        assert "apps/recipes/demo.yaml" in packed


@pytest.mark.parametrize("package", [*PACKAGES, "tiny-workbench"])
def test_a_wheel_works_alone(
    package: str, uv: Uv, wheels: dict[str, Path], empty_environment: Path, tmp_path: Path
) -> None:
    python = next(path for path in empty_environment.glob("*/python*") if path.stem == "python")
    lock = tmp_path / "pylock.toml"
    uv("export", "--locked", "--package", package, "--no-dev", "--no-emit-workspace", "--output-file", lock)
    uv("pip", "install", "--python", python, "--requirement", lock)
    wheel = wheels[package]
    uv("pip", "install", "--python", python, "--no-index", "--find-links", wheel.parent, wheel)

    present = [package] if package in PACKAGES else ["apps", "tinycore", "tinydata", "tinyeval", "tinyreason"]
    absent = [name for name in (*PACKAGES, "apps") if name not in present]
    script = LOCATION.format(present=present, absent=absent) + SMOKE[package]
    # -I: neither the current folder nor PYTHONPATH may lend what the wheel lacks.
    command = [python, "-I", "-c", script]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
