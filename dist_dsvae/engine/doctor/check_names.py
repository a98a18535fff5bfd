"""The checks by name, in their order."""

from __future__ import annotations

# What to do where a check itself breaks
REMEDIES = {
    "versions": "Make a fresh virtual environment: pip install -e .",
    "host": "Look at what the message names.",
    "gpus": "Run nvidia-smi; if it fails as well, install the driver anew or take another node.",
    "shared-memory": "Look at what the message names.",
    "file-descriptors": "Look at what the message names.",
    "slurm": "Look at the SLURM_ variables of this job (env | grep SLURM).",
    "disk": "Make the folder writable, make room, or give another as --disk.",
    "clocks": "Name the network interface in GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME.",
    "collectives": "Name the network interface in GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME; NCCL_DEBUG=INFO "
    "says what NCCL tries.",
    "pinned-copies": "ulimit -l unlimited lets a process pin memory.",
    "iteration": "Update torch and the driver; CUDA_LAUNCH_BLOCKING=1 names the operator that failed. For "
    "lack of memory: a smaller --batch-size.",
    "bf16": "Train with --mixed_precision no, and update torch and the driver.",
    "graph": "Train with --set train.cuda_graph=off, which is slower and computes the same.",
}
NAMES = tuple(REMEDIES)
