#!/usr/bin/env bash
# Installs a bundle of `invoke bundle` on a host without internet: verifies every file, loads the image, unpacks the kit
# and puts weights, settings and the host's tools into it. Run it in the bundle: ./install.sh [DIRECTORY]
set -euo pipefail
bundle=$(cd "$(dirname "$0")" && pwd)
target=${1:-$PWD/qwen3-asr-ascend}

fail() {
  echo "install.sh: $1 → $2" >&2
  exit 1
}

for command in docker make sha256sum tar; do
  command -v "$command" >/dev/null || fail "$command is not installed" "install your distribution's $command package"
done
docker info >/dev/null 2>&1 || fail "the docker engine cannot be reached" "sudo systemctl start docker, or run this with sudo"
python=
for name in ${PYTHON:-python3 python3.11 python3.12 python3.10}; do
  if "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
    python=$name
    break
  fi
done
[[ $python ]] || fail "no Python 3.10, 3.11 or 3.12 with venv" "PYTHON=/path/to/python3.11 ./install.sh"
[[ -e $bundle/SHA256SUMS ]] || fail "$bundle is no bundle: SHA256SUMS is missing" "copy the whole directory"
[[ ! -e $target/.env ]] || fail "$target holds an installed kit" "remove it, or name another directory: ./install.sh DIRECTORY"

echo "Verifying $(wc -l <"$bundle/SHA256SUMS") files"
(cd "$bundle" && sha256sum --check --quiet --strict SHA256SUMS) || fail "the bundle is damaged" "copy it again"

echo "Loading the image"
docker load --input "$bundle/image.tar"

echo "Unpacking the kit into $target"
mkdir -p "$target"
tar -xf "$bundle/kit.tar" -C "$target"
if [[ -d $bundle/weights ]]; then cp -R "$bundle/weights" "$target/"; fi

echo "Installing the host's tools"
"$python" -m venv "$target/.venv"
PIP_NO_INDEX=1 PIP_FIND_LINKS=$bundle/wheels "$target/.venv/bin/python" "$target/env/install.py" host
# Last, so that a run that was cut off is not taken for an installed kit.
cp "$bundle/settings.env" "$target/.env"
echo "Installed. Next: cd $target && make up"
