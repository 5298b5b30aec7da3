"""Selective state space scan (Mamba S6), over a sequence or one step."""

from tinykernels.selective_scan.operation import selective_scan, selective_scan_step

__all__ = ["selective_scan", "selective_scan_step"]
