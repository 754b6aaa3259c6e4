#!/usr/bin/env bash
# From a bare machine with a GPU to a training that outlives a lost connection. The second call goes on, or attaches.
#
#   bash tools/gpu_vm.sh [OPTION ...] [-- OPTION OF TRAIN ...]   there, in a checkout or without one
#   ssh VM bash -s < tools/gpu_vm.sh                             from here; there, nothing but bash is needed
#   ssh VM bash -s -- --dry-run < tools/gpu_vm.sh                the same with options
#
#   --profile NAME       gpu (VOC07+12 and SSD300; the default), or cpu: a trial of all the rest, without a GPU
#   --run FOLDER         in the checkout; default: runs/<profile>, where the notebooks look for it
#   --mirror ADDRESS     of a folder with VOC's archives, to be tried first; may be repeated
#   --folder FOLDER      the checkout; default: the one that this file is in, else ~/ssd-from-scratch
#   --repository ADDRESS from which the checkout is cloned where there is none
#   --without-gpu        go on although there is none, with --profile gpu too: a step of SSD300 then takes many seconds
#   --dry-run            check everything, say what would be done, and do nothing
#
# TORCH_INDEX (another build of torch), COURSE_DEVKIT (a VOC of yours) and CUDA_VISIBLE_DEVICES mean what they do elsewhere.
set -euo pipefail

REPOSITORY=https://github.com/ssd-from-scratch/ssd-from-scratch
# torch's wheel on PyPI brings CUDA 13, which needs this driver: https://docs.nvidia.com/deploy/cuda-compatibility/
DRIVER=580
# Gigabytes: the environment with room to unpack (see setup.py); VOC, its archives and VGG16's weights; a run.
ENVIRONMENT=9 DATA=7 RUN=2

say() { printf '%s gpu_vm: %s\n' "$(date +%H:%M:%S)" "$*"; }

fail() {
  printf 'gpu_vm: %s\n' "$*" >&2
  exit 1
}

has() { command -v "$1" >/dev/null; }

# ---- what was asked for ----------------------------------------------------------------------------------------------

read_options() {
  profile=gpu run='' folder='' repository=$REPOSITORY
  with_gpu=yes dry=no inside=no mirrors=() training=()
  while (($#)); do
    case $1 in
      --without-gpu) with_gpu=no ;;
      --dry-run) dry=yes ;;
      --inside) inside=yes ;; # within tmux: said by this script alone
      --) training=("${@:2}") && break ;;
      --profile | --run | --mirror | --folder | --repository)
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $1 in
          --profile) profile=$2 ;;
          --run) run=$2 ;;
          --mirror) mirrors+=(--mirror "$2") ;;
          --folder) folder=$2 ;;
          --repository) repository=$2 ;;
        esac
        shift
        ;;
      *) fail "$1 is no option of this script: options of train come after --" ;;
    esac
    shift
  done
  [ "$profile" = gpu ] || with_gpu=no
  run=${run:-runs/$profile}
  local own=${BASH_SOURCE[0]:-}
  [ -n "$folder" ] || { [ -n "$own" ] && is_checkout "$(dirname "$own")/.." && folder=$(dirname "$own")/..; } ||
    folder=$HOME/ssd-from-scratch
  if [ -d "$folder" ]; then folder=$(cd "$folder" && pwd); fi
  log=$folder/${run%/}.log
  session=$(basename "$folder")-$(basename "$run")
  session=${session//[.:]/_} # tmux has a meaning for both
}

is_checkout() { [ -f "$1/course_lib/profiles.py" ] && [ -f "$1/tools/gpu_vm.sh" ]; }

# ---- before anything is installed or fetched -------------------------------------------------------------------------

check_gpu() {
  [ "$with_gpu" = yes ] || return 0
  has nvidia-smi || fail "no GPU here (no nvidia-smi): take a machine with an NVIDIA GPU and its driver;" \
    "for a trial of all the rest, --profile cpu"
  local found driver
  found=$(nvidia-smi --query-gpu=driver_version,name,memory.total --format=csv,noheader 2>&1 </dev/null) ||
    fail "no GPU here: nvidia-smi says: ${found%%$'\n'*}"
  driver=${found%%.*}
  [[ $driver =~ ^[0-9]+$ ]] || fail "no GPU here: nvidia-smi says: ${found%%$'\n'*}"
  ((driver >= DRIVER)) || [ -n "${TORCH_INDEX:-}" ] ||
    fail "the driver is $driver, and torch's usual build needs $DRIVER: update the driver, or name in TORCH_INDEX an" \
      "index of builds for an older CUDA (https://pytorch.org/get-started/locally/ gives its address)"
  say "GPU (driver, name, memory): ${found//$'\n'/; }"
}

check_disk() {
  local at=$folder needed=$RUN free
  while [ ! -d "$at" ]; do at=$(dirname "$at"); done
  [ -e "$folder/.venv" ] || needed=$((needed + ENVIRONMENT))
  [ "$profile" != gpu ] || have_data || needed=$((needed + DATA))
  free=$(($(df -Pk "$at" | awk 'NR == 2 { print $4 }') / 1000000))
  ((free >= needed)) || fail "$free GB are free at $at, and $needed are needed: take a larger disk, or --folder"
  say "disk: $free GB are free at $at, $needed are needed"
}

have_data() { [ -n "${COURSE_DEVKIT:-}" ] || { have_year 2007 && have_year 2012; }; }

have_year() { [ -d "$folder/data/VOCdevkit/VOC$1/Annotations" ]; }

# ---- packages and the checkout ---------------------------------------------------------------------------------------

# A Python that the course runs on, if there is one: python3 where that is new enough.
find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11; do
    if has "$name" && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null; then
      echo "$name"
      return
    fi
  done
}

# The Debian packages that are missing, one a line.
missing_packages() {
  local name python
  for name in tmux git; do has "$name" || echo "$name"; done
  has git || echo ca-certificates # for an https address
  python=$(find_python)
  if [ -z "$python" ]; then
    python=$(newest_python)
    printf '%s\n' "$python" "$python-venv"
  elif [ ! -e "$folder/.venv" ] && ! "$python" -c 'import ensurepip, venv' </dev/null 2>/dev/null; then
    "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])' </dev/null
  fi
}

# The newest Python that the system's packages offer.
newest_python() {
  local name
  for name in python3.13 python3.12 python3.11; do
    if has apt-cache && [ -n "$(apt-cache search --names-only "^$name-venv\$" 2>/dev/null </dev/null)" ]; then break; fi
  done
  echo "$name"
}

install_packages() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300) packages
  mapfile -t packages < <(missing_packages)
  if [ ${#packages[@]} = 0 ]; then
    say "packages: tmux, git and $(find_python) are here"
    return
  fi
  say "packages: ${packages[*]} are to be installed"
  [ "$dry" = no ] || return 0
  has apt-get || fail "install ${packages[*]} with this system's own package manager; then the same command again"
  if [ "$(id -u)" != 0 ]; then
    { has sudo && sudo -n true 2>/dev/null </dev/null; } ||
      fail "you may not install here: have someone do apt-get install ${packages[*]}; then the same command again"
    apt=(sudo -n "${apt[@]}")
  fi
  "${apt[@]}" update </dev/null || say "the lists of packages could not be updated; trying with those that are here"
  mapfile -t packages < <(missing_packages) # the new lists may offer another Python
  "${apt[@]}" install -y --no-install-recommends "${packages[@]}" </dev/null >/dev/null ||
    fail "apt-get could not install ${packages[*]}"
  mapfile -t packages < <(missing_packages)
  [ ${#packages[@]} = 0 ] || fail "still missing after apt-get: ${packages[*]}; the course needs Python 3.11 or newer"
}

get_checkout() {
  if is_checkout "$folder"; then
    say "checkout: $folder"
  else
    say "checkout: to be cloned from $repository to $folder"
    [ "$dry" = yes ] || git clone --quiet "$repository" "$folder" </dev/null ||
      fail "git could not clone $repository to $folder"
  fi
}

# ---- in tmux: what takes long ----------------------------------------------------------------------------------------

running() { has tmux && tmux has-session -t "=$session" 2>/dev/null </dev/null; }

start() {
  local name set=()
  for name in TORCH_INDEX COURSE_DEVKIT CUDA_VISIBLE_DEVICES; do # a tmux that runs already has its own environment
    [ -z "${!name:-}" ] || set+=("$name=${!name}")
  done
  local call=(bash "$folder/tools/gpu_vm.sh" --inside --profile "$profile" --run "$run" --folder "$folder" "${mirrors[@]}")
  [ "$with_gpu" = yes ] || call+=(--without-gpu)
  mkdir -p "$(dirname "$log")"
  touch "$log"
  # Output goes into a file, not through a pipe or a terminal: those may be gone before the training has saved its step.
  tmux new-session -d -s "$session" -n log -c "$folder" tail -n 40 -F "$log" </dev/null
  tmux new-window -d -t "=$session:" -n work -c "$folder" env "${set[@]}" "${call[@]}" -- "${training[@]}" </dev/null
  say "started in tmux; all that it says goes into $log"
}

show() {
  say "look at it: tmux attach -t $session   (leave it with Ctrl-b d; it goes on), or tail -f $log"
  say "stop it:    tmux kill-session -t $session   (the step is finished and kept; the same command goes on)"
  say "curves:     $folder/.venv/bin/tensorboard --logdir $folder/$run   and ssh -L 6006:localhost:6006 from where you are"
  if [ -t 0 ] && [ -t 1 ] && [ -z "${TMUX:-}" ]; then tmux attach -t "=$session"; fi
}

leave() {
  local code=$? # 0 after a hangup too, which ends this script, and tells a training to save and end
  if [ "$finished" = yes ]; then say "all is done"; else
    say "ended before all was done (exit code $code): the same command goes on from here"
  fi
  tmux kill-session -t "=$session" 2>/dev/null </dev/null || true # the window of the log too
}

work() {
  exec >>"$log" 2>&1 # not the input too: a window of tmux ends when nothing holds its terminal
  finished=no
  trap leave EXIT
  cd "$folder"
  say "environment: $(find_python) tools/setup.py"
  "$(find_python)" tools/setup.py
  local gpus
  gpus=$(count_gpus)
  fetch
  train "$gpus"
  say "measuring on the test set"
  if [ "$profile" = gpu ]; then # the measure of what is published on VOC2007
    .venv/bin/python -m course_lib evaluate --run "$run" --method 11point
  else
    .venv/bin/python -m course_lib evaluate --run "$run"
  fi
  finished=yes
  say "home with it, from there: rsync -av --exclude 'state*' VM:$folder/$run/ $run/   and then end this machine: it costs"
}

# How many GPUs torch sees; the processes are to share a batch of 32, or of what --recipe says, in equal parts.
count_gpus() {
  [ "$with_gpu" = yes ] || { echo 0 && return; }
  .venv/bin/python -c '
import sys, torch
if not torch.cuda.is_available():
    sys.exit(f"gpu_vm: torch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU: does the driver fit it?")
print(max(count for count in (1, 2, 4, 8, 16, 32) if count <= torch.cuda.device_count()))'
}

fetch() {
  [ "$profile" = gpu ] || return 0
  local wanted=(vgg16) year
  [ -n "${COURSE_DEVKIT:-}" ] || for year in 2007 2012; do
    if have_year "$year"; then say "data: VOC$year is here"; else wanted+=("voc$year"); fi
  done
  say "data: ${wanted[*]}, what is here already is found"
  .venv/bin/python -m course_lib download "${wanted[@]}" "${mirrors[@]}"
}

train() {
  local program=(.venv/bin/python -m course_lib)
  if (($1 > 1)); then program=(.venv/bin/torchrun --nproc-per-node "$1" -m course_lib --); fi
  program+=(train --profile "$profile" --run "$run" "${training[@]}")
  say "training: ${program[*]}"
  "${program[@]}"
}

main() {
  read_options "$@"
  if [ "$inside" = yes ]; then
    work
  elif running; then
    say "it runs already"
    show
  else
    check_gpu
    check_disk
    install_packages
    get_checkout
    if [ "$dry" = yes ]; then
      say "then, in tmux: the environment, $([ "$profile" != gpu ] || echo 'VOC and the weights of VGG16, ')the training in" \
        "$folder/$run, and its measurement"
    else
      start
      show
    fi
  fi
}

main "$@"
