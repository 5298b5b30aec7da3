"""The loader is strict: whatever cannot be used is one line that names the dotted key and the nearest valid name; what
can be used is loaded exactly, and dumping it gives it back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinycore
from tinycore.config import ConfigError, Family, dump, load, type_name


class ShapeConfig(Family):
    default: ClassVar[str | None] = "circle"


@dataclass(frozen=True, kw_only=True)
class Circle(ShapeConfig, kind="circle"):
    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ConfigError(f"radius: {self.radius} is not positive")


@dataclass(frozen=True, kw_only=True)
class Polygon(ShapeConfig, kind="polygon"):
    corners: int


class ToolConfig(Family):
    keyed: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Saw(ToolConfig, kind="saw"):
    teeth: int = 20


class PlacementConfig(Family):
    tag: ClassVar[str] = "placement"


@dataclass(frozen=True, kw_only=True)
class Before(PlacementConfig, kind="pre"):
    pass


class NothingYetConfig(Family):
    pass


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Everything:
    name: str = "x"
    flag: bool = False
    count: int = 1
    ratio: float = 0.5
    mode: Literal["fast", "slow", 3] = "fast"
    limit: int | None = None
    either: int | str = 0
    items: tuple[int, ...] = ()
    pair: tuple[float, float] = (0.9, 0.95)
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    shape: ShapeConfig = field(default_factory=Circle)
    shapes: dict[str, ShapeConfig] = field(default_factory=dict)
    tools: dict[str, ToolConfig] = field(default_factory=dict)
    placement: PlacementConfig | None = None
    nothing: NothingYetConfig | None = None
    children: tuple[Everything, ...] = ()
    anything: Any = None


def wrong(mapping: Any, path: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        load(Everything, mapping, path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


GOOD = {
    "name": "tiny",
    "flag": True,
    "count": 7,
    "ratio": "1e-3",
    "mode": 3,
    "limit": 4,
    "either": "auto",
    "items": [3, 1],
    "pair": [1, "0.5"],
    "inner": {"size": 2},
    "inners": [{"size": 1, "rate": 1}],
    "shape": {"kind": "polygon", "corners": 3},
    "shapes": {"first": {}, "second": {"kind": "circle", "radius": 2}},
    "tools": {"saw": {"teeth": 3}},
    "placement": {"placement": "pre"},
    "children": [{"children": [{"name": "deep"}]}],
    "anything": [1, {"a": None}],
}


def test_what_is_valid_is_loaded_exactly() -> None:
    value = load(Everything, GOOD)
    assert value.ratio == 1e-3
    assert value.pair == (1.0, 0.5)
    assert isinstance(value.pair[0], float)
    assert value.inners == (Inner(size=1, rate=1.0),)
    assert value.shape == Polygon(corners=3)
    assert value.shapes == {"first": Circle(), "second": Circle(radius=2.0)}
    assert value.tools == {"saw": Saw(teeth=3)}
    assert value.placement == Before()
    assert value.children[0].children[0].name == "deep"


def test_dump_is_the_inverse_through_json() -> None:
    value = load(Everything, GOOD)
    plain = json.loads(json.dumps(dump(value)))
    assert load(Everything, plain) == value
    assert plain["shape"] == {"kind": "polygon", "corners": 3}
    assert plain["tools"] == {"saw": {"teeth": 3}}
    assert plain["placement"] == {"placement": "pre"}
    assert set(plain) == set(GOOD) | {"nothing"}, "every field is written out"


@pytest.mark.parametrize(
    "mapping, message",
    [
        ({"nmae": "x"}, "config: unknown key 'nmae'; did you mean 'name'?"),
        ({"inner": {"size": 1, "rat": 2}}, "inner: unknown key 'rat'; did you mean 'rate'?"),
        ({"inner": {}}, "inner.size: missing, expected int"),
        ({"inners": [{"size": 1}, {"size": "2"}]}, "inners.1.size: expected int, got '2'"),
        ({"shape": {"kind": "polygone"}}, "shape.kind: unknown shape 'polygone'; did you mean 'polygon'?"),
        ({"shape": {"kind": "zzz"}}, "shape.kind: unknown shape 'zzz'; valid: circle, polygon"),
        ({"shape": {"kind": ["circle"]}}, "shape.kind: unknown shape '['circle']'; did you mean 'circle'?"),
        ({"shape": {"radius": -1}}, "shape.radius: -1.0 is not positive"),
        ({"shape": {"corners": 3}}, "shape: unknown key 'corners'; valid: radius"),
        ({"shape": "circle"}, "shape: expected a mapping, got 'circle'"),
        ({"shapes": {"a": {"kind": "circel"}}}, "shapes.a.kind: unknown shape 'circel'; did you mean 'circle'?"),
        ({"tools": {"swa": {}}}, "tools.swa: unknown tool 'swa'; did you mean 'saw'?"),
        ({"tools": {"saw": {"kind": "saw"}}}, "tools.saw: unknown key 'kind'; valid: teeth"),
        ({"tools": {"saw": None}}, "tools.saw: expected a mapping, got None"),
        ({"placement": {}}, "placement: needs 'placement', one of pre"),
        ({"placement": {"kind": "pre"}}, "placement: needs 'placement', one of pre"),
        ({"nothing": {}}, "nothing: needs 'kind', one of none yet"),
        ({"nothing": {"kind": "x"}}, "nothing.kind: unknown nothingyet 'x'; none exists"),
        ({"mode": "fats"}, "mode: unknown value 'fats'; did you mean 'fast'?"),
        ({"mode": "3"}, "mode: expected one of fast, slow, 3, got '3'"),
        ({"mode": 3.0}, "mode: expected one of fast, slow, 3, got 3.0"),
        ({"mode": True}, "mode: expected one of fast, slow, 3, got True"),
        ({"flag": 1}, "flag: expected true or false, got 1"),
        ({"flag": "yes"}, "flag: expected true or false, got 'yes'"),
        ({"count": True}, "count: expected int, got True"),
        ({"count": 1.0}, "count: expected int, got 1.0"),
        ({"count": "1"}, "count: expected int, got '1'"),
        ({"count": None}, "count: expected int, got None"),
        ({"name": 5}, "name: expected string, got 5"),
        ({"ratio": True}, "ratio: expected number, got True"),
        ({"ratio": "one"}, "ratio: expected number, got 'one'"),
        ({"ratio": "1e-3 "}, "ratio: expected number, got '1e-3 '"),
        ({"ratio": "1_000"}, "ratio: expected number, got '1_000'"),
        ({"ratio": "nan"}, "ratio: expected number, got 'nan'"),
        ({"ratio": float("nan")}, "ratio: expected number, got nan"),
        ({"ratio": float("-inf")}, "ratio: expected number, got -inf"),
        ({"limit": "none"}, "limit: expected int, got 'none'"),
        ({"either": 1.5}, "either: expected int or string, got 1.5"),
        ({"items": 3}, "items: expected a list, got 3"),
        ({"items": "12"}, "items: expected a list, got '12'"),
        ({"items": [1, None]}, "items.1: expected int, got None"),
        ({"pair": [1]}, "pair: expected 2 values, got 1"),
        ({"children": [{}, {"children": [{"nmae": 1}]}]},
         "children.1.children.0: unknown key 'nmae'; did you mean 'name'?"),
        ({1: 2}, "config: keys are strings, got 1"),
        ([], "config: expected a mapping, got []"),
        (None, "config: expected a mapping, got None"),
    ],
)  # fmt: skip
def test_one_line_names_the_key_and_the_nearest_name(mapping: Any, message: str) -> None:
    assert wrong(mapping) == message


def test_the_path_stands_in_front() -> None:
    assert wrong({"inner": {"size": None}}, "train") == "train.inner.size: expected int, got None"
    assert wrong([], "train") == "train: expected a mapping, got []"


@pytest.mark.parametrize("number", ["1e400", "-1e999"])
def test_numbers_too_large_for_a_float_are_refused(number: str) -> None:
    assert wrong({"ratio": number}).startswith("ratio: expected number, got")
    assert wrong({"ratio": 10**400}).startswith("ratio: expected number, got 1000")


@pytest.mark.parametrize("text, value", [("1e-3", 1e-3), ("+2.", 2.0), (".5", 0.5), ("-1E+2", -100.0), ("7", 7.0)])
def test_yaml_numbers_that_arrive_as_strings(text: str, value: float) -> None:
    assert load(Everything, {"ratio": text}).ratio == value


def test_nesting_without_end_is_one_line() -> None:
    bomb: Any = {"name": "core"}
    for _ in range(100_000):
        bomb = {"children": [bomb]}
    assert wrong(bomb) == "config: nested too deeply"
    listed: Any = 1
    for _ in range(100_000):
        listed = [listed]
    assert wrong({"items": listed}) == "config: nested too deeply"
    while isinstance(bomb, dict) and "children" in bomb:  # unwound here: its destructor would recurse
        (bomb,) = bomb["children"]
    while isinstance(listed, list):
        (listed,) = listed


def test_long_values_are_cut() -> None:
    assert len(wrong({"count": "9" * 10_000})) < 100


def test_families_refuse_two_members_of_a_kind_and_members_without_one() -> None:
    with pytest.raises(TypeError, match="kind 'circle' is already Circle"):

        class Again(ShapeConfig, kind="circle"):
            pass

    with pytest.raises(TypeError, match="needs kind="):

        class Nameless(ShapeConfig):
            pass

    assert set(ShapeConfig.members) == {"circle", "polygon"}


@pytest.mark.parametrize(
    "annotation, name",
    [
        (int | None, "int or null"),
        (Literal["a", 1], "a | 1"),
        (ShapeConfig, "circle | polygon"),
        (bool, "true or false"),
        (tuple[float, ...], "list of number"),
        (dict[str, str], "mapping to string"),
        (NothingYetConfig, "nothing yet"),
    ],
)
def test_type_names_are_for_people(annotation: Any, name: str) -> None:
    assert type_name(annotation) == name


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    mapping=st.dictionaries(st.sampled_from([*GOOD, "nothing", "kind"]), PLAIN, max_size=4)
    | st.dictionaries(st.sampled_from(list(GOOD)), st.sampled_from(list(GOOD.values())), max_size=4)
)
def test_any_plain_data_is_loaded_or_refused_in_one_line(mapping: dict[str, Any]) -> None:
    message, value = "", None
    try:
        value = load(Everything, mapping)
    except ConfigError as error:
        message = str(error)
    if value is None:
        assert message
        assert "\n" not in message
    else:
        assert dump(load(Everything, dump(value))) == dump(value)


BASE: dict[str, Any] = {
    "vocab_size": 32,
    "dim": 16,
    "max_seq_len": 64,
    "layers": [{"repeat": 2, "mixer": {"kind": "attention", "heads": 4}, "ffn": {"kind": "swiglu"}}],
}


def attention(**settings: Any) -> list[dict[str, Any]]:
    return [{"mixer": {"kind": "attention", **settings}}]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dims": 3}, "model: unknown key 'dims'; did you mean 'dim'?"),
        ({"dim": 0}, "model.dim: 0 is not positive"),
        ({"vocab_size": None}, "model.vocab_size: expected int, got None"),
        ({"layers": [{}]}, "model.layers.0.layers: an entry is either a layer (mixer, ffn) or a group (layers)"),
        ({"layers": [{"layers": [], "ffn": {"kind": "swiglu"}}]},
         "model.layers.0.layers: an entry is either a layer (mixer, ffn) or a group (layers)"),
        ({"layers": [{"repeat": 0, "ffn": {"kind": "swiglu"}}]}, "model.layers.0.repeat: 0 is not between 1 and 4096"),
        ({"layers": attention(heads=3)}, "model.layers.0.mixer.heads: 3 does not divide dim 16"),
        ({"layers": [*BASE["layers"], *attention(heads=3)]}, "model.layers.1.mixer.heads: 3 does not divide dim 16"),
        ({"layers": [{"repeat": 3, "layers": attention(heads=3)}]},
         "model.layers.0.layers.0.mixer.heads: 3 does not divide dim 16"),
        ({"layers": attention(heads=4, kv_heads=3)}, "model.layers.0.mixer.kv_heads: 3 does not divide heads 4"),
        ({"layers": attention(heads=16)}, "model.layers.0.mixer.head_dim: 1 is odd; RoPE rotates pairs of channels"),
        ({"layers": attention(heads=4, window=0)}, "model.layers.0.mixer.window: 0 is not positive"),
        ({"layers": attention(heads=4, theta=0)}, "model.layers.0.mixer.theta: 0.0 is not positive"),
        ({"layers": attention(heads=4, linear={"qq": {}})},
         "model.layers.0.mixer.linear: unknown projection 'qq'; valid: q, k, v, o, fan_p, fan_g"),
        ({"layers": [{"mixer": {"kind": "atention", "heads": 4}}]},
         "model.layers.0.mixer.kind: unknown mixer 'atention'; did you mean 'attention'?"),
        ({"layers": [{"ffn": {"kind": "swiglu", "hidden": 0}}]}, "model.layers.0.ffn.hidden: 0 is not positive"),
        ({"depth": {"kind": "shared", "times": 0}}, "model.depth.times: 0 is not between 1 and 256"),
        ({"norm": {"eps": 0}}, "model.norm.eps: 0.0 is not between 0 and 1"),
        ({"embed": {"scale": 0}}, "model.embed.scale: 0.0 is not positive"),
        ({"heads": {}}, "model.heads: needs 'lm', the next-token head"),
        ({"heads": {"lm": {"chunk": 0}}}, "model.heads.lm.chunk: 0 is not positive"),
        ({"routing": {"kind": "modd"}}, "model.routing.kind: unknown routing 'modd'; did you mean 'mod'?"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tinycore.ModelConfig.from_dict({**BASE, **change})
    assert str(caught.value) == message


def test_repeats_cannot_multiply_without_end() -> None:
    bomb: Any = {"ffn": {"kind": "swiglu"}}
    for _ in range(5):
        bomb = {"repeat": 4096, "layers": [bomb]}
    with pytest.raises(ConfigError, match=r"model\.layers: more than 4096 layers"):
        tinycore.ModelConfig.from_dict({**BASE, "layers": [bomb]})


def test_groups_repeat_in_order() -> None:
    mixer, ffn = {"mixer": {"kind": "attention", "heads": 4}}, {"ffn": {"kind": "swiglu", "hidden": 8}}
    layers = [{"repeat": 2, "layers": [mixer, {"repeat": 2, **ffn}]}, mixer]
    config = tinycore.ModelConfig.from_dict({**BASE, "layers": layers})
    kinds = ["m" if layer.mixer else "f" for layer in config.flat_layers()]
    assert "".join(kinds) == "mffmffm"
    assert [site.layer for site in config.call_sites()] == list(range(7))


def test_a_model_config_is_its_plain_data() -> None:
    config = tinycore.ModelConfig.from_dict(BASE)
    plain = config.to_dict()
    assert tinycore.ModelConfig.from_dict(json.loads(json.dumps(plain))) == config
    assert plain["norm"] == {"placement": "pre", "eps": 1e-5, "affine": True}
    assert plain["heads"] == {
        "lm": {"chunk": None, "linear": None, "probabilities": "softmax", "weight": 1.0, "scale": None}
    }
