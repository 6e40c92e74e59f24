"""One thread and no network for every test: two workers share two cores fairly, and results repeat."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["LP_NUM_THREADS"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"
