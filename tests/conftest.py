"""Settings of every test: one thread for each process, so that two workers share two cores."""

import os

# Before torch is imported by anything, and inherited by every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
