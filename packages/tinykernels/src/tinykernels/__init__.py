"""Kernels for tiny language models, each beside a naive oracle."""

from tinykernels.attention import attention
from tinykernels.bitlinear import PackedTernary, bitlinear, bitlinear_packed, pack, unpack
from tinykernels.causal_conv1d import causal_conv1d
from tinykernels.dispatch import Backend, BackendError
from tinykernels.documents import cu_seqlens_of, segment_of
from tinykernels.gated_scan import gated_scan
from tinykernels.linear_cross_entropy import linear_cross_entropy
from tinykernels.linear_kl_divergence import linear_kl_divergence
from tinykernels.newton_schulz import newton_schulz
from tinykernels.rms_norm import rms_norm
from tinykernels.rotary_qk_norm import rotary_qk_norm
from tinykernels.selective_scan import selective_scan, selective_scan_step

__all__ = [
    "Backend",
    "BackendError",
    "PackedTernary",
    "attention",
    "bitlinear",
    "bitlinear_packed",
    "causal_conv1d",
    "cu_seqlens_of",
    "gated_scan",
    "linear_cross_entropy",
    "linear_kl_divergence",
    "newton_schulz",
    "pack",
    "rms_norm",
    "rotary_qk_norm",
    "segment_of",
    "selective_scan",
    "selective_scan_step",
    "unpack",
]
