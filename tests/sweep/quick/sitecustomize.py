"""In processes that a test starts: nnU-Net's pools are forked, not begun anew (seconds each), and it uses one core."""

import multiprocessing
import os

if os.environ.get("NNUNET_COVID_QUICK"):
    _get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: _get_context("fork" if method == "spawn" else method)
    multiprocessing.cpu_count = lambda: 1
    os.cpu_count = lambda: 1
