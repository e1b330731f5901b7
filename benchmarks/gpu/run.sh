#!/usr/bin/env bash
# As much as fits into MINUTES on a machine with one NVIDIA card, Python and torch, without a package index.
# Usage: run.sh MINUTES OUT [options of run.py]      (beside it: the folder that prepare.sh has made, as PACK or ./pack)
set -euo pipefail
minutes=${1:?usage: run.sh MINUTES OUT [options of run.py]}
out=${2:?usage: run.sh MINUTES OUT [options of run.py]}
shift 2
mkdir -p "$out"
out=$(cd "$out" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
pack=${PACK:-$here/pack}
site=${SITE:-/tmp/nnunet_covid_gpu}
if [ ! -f "$site/ready" ]; then
  mkdir -p "$site/site" "$site/data"
  tar -xJf "$pack/site.tar.xz" -C "$site/site" &
  unpacking=$!
  damaged=
  tar -xJf "$pack/data.tar.xz" -C "$site/data" || damaged=data.tar.xz
  wait "$unpacking" || damaged=site.tar.xz
  [ -z "$damaged" ] || { echo "$pack/$damaged cannot be unpacked: make it again with prepare.sh" >&2; exit 1; }
  touch "$site/ready"
fi
mkdir -p "$site/results"
export PYTHONPATH="$site/site${PYTHONPATH:+:$PYTHONPATH}"
export nnUNet_raw="$site/data/raw" nnUNet_preprocessed="$site/data/preprocessed" nnUNet_results="$site/results"
nnUNet_extTrainer=$(dirname "$(find "$site/site/nnunet_covid" -name nnunet_covid_trainers.py)")
export nnUNet_extTrainer nnUNet_n_proc_DA=0 nnUNet_def_n_proc=1 OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=4 PYTHONUNBUFFERED=1
export MPLBACKEND=Agg
# several processes on one card take turns in slices of milliseconds, unless NVIDIA's server (MPS) lets them compute at once
if [ -n "${MPS:-}" ]; then
  control=$(command -v nvidia-cuda-mps-control || find /usr/local/nvidia /usr/bin /usr/lib /opt -name nvidia-cuda-mps-control 2>/dev/null | head -1)
  if [ -z "$control" ]; then
    echo "taking turns: this machine has no MPS"
  else
    PATH="$PATH:$(dirname "$control")"
    export CUDA_MPS_PIPE_DIRECTORY="$site/mps" CUDA_MPS_LOG_DIRECTORY="$site/mps"
    mkdir -p "$site/mps"
    echo | timeout 5 "$control" 2>/dev/null || "$control" -d || true
    trap 'cp "$site"/mps/*.log "$out" 2>/dev/null || true; echo quit | timeout 10 "$control" >/dev/null || true' EXIT
    if timeout 40 "${PYTHON:-python3}" -c "import torch; print('MPS', torch.ones(2).cuda().sum().item())"; then
      echo "computing at once: MPS"
    else
      echo "taking turns: MPS does not work here"
      echo quit | timeout 10 "$control" || true
      unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
    fi
  fi
fi
cd "$site" # not in a checkout, whose package would be found instead of the pack's
"${PYTHON:-python3}" "$here/run.py" "$minutes" --out "$out" --work "$site/jobs" "$@"
