"""Stands in for apps/pretrain where only the handling of its results is tested: it trains nothing and answers at once.

Called as `--recipe FILE --out DIR --json --device D`. The recipe's learning rate says what happens: 0.5 the loss diverges,
0.25 a refusal, 0.125 it kills itself, 0.0625 it prints no result; otherwise val_bpb is 1 + the learning rate, or, where
BEST_RATE is set, 1 + its distance to that in powers of two. A model of twice the feed-forward is half as fast. Each call
adds a line, seed and learning rate, to the file that CALLS names; CALL_SECONDS is how long one takes.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import yaml

recipe = yaml.safe_load(Path(sys.argv[sys.argv.index("--recipe") + 1]).read_text())
run = Path(sys.argv[sys.argv.index("--out") + 1])
rate, seed = recipe["optim"]["learning_rate"], recipe["train"]["seed"]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(f"{seed} {rate:g} {os.getpid()}\n")
time.sleep(float(os.environ.get("CALL_SECONDS", "0")))
if rate == 0.5:
    sys.exit("error: loss or gradient not finite at step 2; there is no checkpoint yet. Lower optim.learning_rate")
if rate == 0.25:
    sys.stderr.write("error: no such corpus\n")
    sys.exit(2)
if rate == 0.125:
    os.kill(os.getpid(), signal.SIGKILL)
if rate == 0.0625:
    print("done")
    sys.exit(0)
run.mkdir()
threads = int(os.environ["OMP_NUM_THREADS"])
(run / "status.json").write_text(json.dumps({"environment": {"threads": threads, "torch": "9.9"}}))
best, hidden = os.environ.get("BEST_RATE"), recipe["model"]["layers"][0]["ffn"]["hidden"]
score = 1 + rate if best is None else 1 + abs(math.log2(rate / float(best))) + seed / 100
found = {"val_bpb": score, "tokens": 1000 + seed, "tokens_per_second": 500.0 * 64 / hidden, "seconds": 2.0}
print(json.dumps(found))
