"""Hold a component of your own to the invariants that every component of tinycore is held to.

    import tinycore
    from tinycore import testing

    testing.check(config)            # every invariant; raises Violation; returns {invariant: reason} of the exempt ones
    testing.streams(config)          # one of them
    testing.identity(config, plain)  # `config` computes what `plain` computes

`config` is a small ModelConfig (16 wide, 32 tokens: see `stack`) that uses the component. A component declares an
invariant that does not hold for it, with the reason, in its config's `exempt`. `python -m tinycore.testing` prints
which member of tinycore holds which invariant.
"""

from tinycore.testing.causality import causal
from tinycore.testing.compilation import compiled
from tinycore.testing.counting import counted, flops
from tinycore.testing.covering import covering_array
from tinycore.testing.gradients import alive, trainable
from tinycore.testing.identities import identity
from tinycore.testing.invariants import CHECKS, STATEMENTS, check, float32
from tinycore.testing.isolation import alone, isolated
from tinycore.testing.learning import learns, mixes
from tinycore.testing.members import Member, exemptions, identities, members, stack
from tinycore.testing.persistence import round_trip
from tinycore.testing.probes import DOUBLE, SINGLE, Precision, Rows, Violation, packed_rows, single_rows
from tinycore.testing.streaming import streams, streams_at

__all__ = [
    "CHECKS",
    "DOUBLE",
    "SINGLE",
    "STATEMENTS",
    "Member",
    "Precision",
    "Rows",
    "Violation",
    "alive",
    "alone",
    "causal",
    "check",
    "compiled",
    "counted",
    "covering_array",
    "exemptions",
    "float32",
    "flops",
    "identities",
    "identity",
    "isolated",
    "learns",
    "members",
    "mixes",
    "packed_rows",
    "round_trip",
    "single_rows",
    "stack",
    "streams",
    "streams_at",
    "trainable",
]
