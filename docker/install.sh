#!/usr/bin/env bash
# Installs a bundle of `invoke bundle` on a host without internet: verifies every file, loads the image, unpacks the kit
# and puts weights, settings and the host's tools into it. Where a kit is installed already, it is upgraded in place: its
# weights, .env and out/ stay. Run it in the bundle: ./install.sh [--signers FILE] [DIRECTORY]
#
# --signers: whose signature the bundle must have, as `man ssh-keygen` describes ALLOWED SIGNERS.
set -euo pipefail
export LC_ALL=C
bundle=$(cd "$(dirname "$0")" && pwd)
usage="./install.sh [--signers FILE] [DIRECTORY]"
namespace=qwen3-asr-bundle # of runtime/ops/bundle.py
image_line='^[[:space:]]*(export[[:space:]]+)?ASR_IMAGE[[:space:]]*='

fail() {
  echo "install.sh: $1 → $2" >&2
  exit 1
}

signers=
target=
while (($#)); do
  case $1 in
    --signers)
      (($# > 1)) || fail "--signers names no file" "$usage"
      signers=$2
      shift
      ;;
    -*) fail "$1 is no option" "$usage" ;;
    *)
      [[ -z $target ]] || fail "$1: only one directory can be installed into" "$usage"
      target=$1
      ;;
  esac
  shift
done
target=${target:-$PWD/qwen3-asr-ascend}

for command in awk docker make sha256sum tar; do
  command -v "$command" >/dev/null || fail "$command is not installed" "install your distribution's $command package"
done
docker info >/dev/null 2>&1 || fail "the docker engine cannot be reached" "sudo systemctl start docker, or run this with sudo"
fits='import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'
python=
for name in ${PYTHON:-python3 python3.11 python3.12 python3.10}; do
  if "$name" -c "$fits" 2>/dev/null; then
    python=$name
    break
  fi
done
[[ $python ]] || fail "no Python 3.10, 3.11 or 3.12 with venv" "PYTHON=/path/to/python3.11 ./install.sh"
[[ -e $bundle/SHA256SUMS ]] || fail "$bundle is no bundle: SHA256SUMS is missing" "copy the whole directory"
[[ ! -e $target/.git ]] || fail "$target is a clone of the kit" "git pull there, or name another directory: $usage"
[[ ! -e $target || -d $target ]] || fail "$target is no directory" "$usage"
# The kit, even if its installation was cut off; else at most what was put there for it.
if [[ -d $target && ! -e $target/.installed && ! -e $target/.loaded-images ]] &&
  ! grep -qs '^name = "qwen3-asr-ascend-kit"$' "$target/pyproject.toml"; then
  other=$(find "$target/" -mindepth 1 -maxdepth 1 ! -name .env ! -name weights ! -name lost+found -print -quit)
  [[ -z $other ]] || fail "$target holds something else, such as ${other##*/}" "name a directory of its own: $usage"
fi

# Who made the bundle: its signature is of SHA256SUMS, which has the checksum of everything else.
signature=$bundle/SHA256SUMS.sig
if [[ $signers ]]; then
  command -v ssh-keygen >/dev/null || fail "ssh-keygen is not installed" "install your distribution's openssh-client package"
  [[ -r $signers ]] || fail "$signers cannot be read" "--signers names the file of the keys that you trust"
  [[ -e $signature ]] || fail "the bundle is not signed" "have it made with ASR_BUNDLE_KEY, or leave --signers out"
  signer=$(ssh-keygen -Y find-principals -s "$signature" -f "$signers" 2>/dev/null) ||
    fail "the bundle is signed by no key of $signers" "ask who made it, and do not install it"
  signer=${signer%%[,$'\n']*}
  ssh-keygen -Y verify -f "$signers" -I "$signer" -n "$namespace" -s "$signature" <"$bundle/SHA256SUMS" >/dev/null 2>&1 ||
    fail "SHA256SUMS is not what $signer signed" "copy the bundle again, or do not install it"
  echo "Signed by $signer"
elif [[ -e $signature ]]; then
  echo "Signed, but by whom was not verified: --signers FILE names the keys that you trust"
else
  echo "Not signed: the checksums show damage, not who made the bundle"
fi

echo "Verifying $(wc -l <"$bundle/SHA256SUMS") files"
(cd "$bundle" && sha256sum --check --quiet --strict SHA256SUMS) || fail "the bundle is damaged" "copy it again"
# Of these folders everything is used, so that everything must have been verified.
folders=(wheels)
if [[ -e $bundle/weights ]]; then folders+=(weights); fi
unknown=$(cd "$bundle" && comm -13 <(cut -c 67- SHA256SUMS | sort) <(find "${folders[@]}" ! -type d | sort))
[[ -z $unknown ]] || fail "not in SHA256SUMS: ${unknown//$'\n'/, }" "copy the bundle again"

version() { sed -n 's/^version = "\(.*\)"$/\1/p'; }
image=$(grep '^ASR_IMAGE=.' "$bundle/settings.env") || fail "settings.env names no ASR_IMAGE" "have the bundle made again"
new=$(tar -xOf "$bundle/kit.tar" pyproject.toml | version)
if [[ -e $target/pyproject.toml ]]; then
  done="Upgraded from $(version <"$target/pyproject.toml") to $new"
else
  done="Installed $new"
fi

echo "Loading the image"
docker load --input "$bundle/image.tar"
mkdir -p "$target"
echo "${image#*=}" >>"$target/.loaded-images" # for `make uninstall`

echo "Unpacking the kit into $target"
# What an earlier bundle brought, and this one does not; nothing that somebody else put there: files in
# these folders, which the kit of an earlier bundle may hold, are this host's own by now.
if [[ -e $target/.installed ]]; then
  comm -23 "$target/.installed" <(tar -tf "$bundle/kit.tar" | sort) | while IFS= read -r name; do
    case $name in
      weights/* | docker/certificates/* | docker/kubernetes/own/*) ;;
      *) rm -f "${target:?}/$name" ;;
    esac
  done
fi
tar -xf "$bundle/kit.tar" -C "$target"
if [[ -d $bundle/weights ]]; then
  mkdir -p "$target/weights"
  for part in "$bundle"/weights/*; do
    name=${part##*/}
    if [[ -e $target/weights/$name ]]; then
      echo "Kept: weights/$name"
    else
      rm -rf "$target/weights/.$name.part"
      cp -R "$part" "$target/weights/.$name.part"
      mv "$target/weights/.$name.part" "$target/weights/$name"
    fi
  done
  # A lock that was kept does not know the models that were added: their tables, as runtime/weights/lockfile.py writes.
  lock=weights/weights.lock
  tables=$(awk 'FILENAME == ARGV[1] { known[$0]; next } /^\[models\./ { wanted = !($0 in known) } wanted' \
    "$target/$lock" "$bundle/$lock")
  if [[ $tables ]]; then
    cp -p "$target/$lock" "$target/$lock.part"
    printf '\n%s\n' "$tables" >>"$target/$lock.part"
    mv "$target/$lock.part" "$target/$lock"
    models=$(sed -n 's/^\[models\."\(.*\)"\]$/\1/p' <<<"$tables")
    echo "Added to $lock: ${models//$'\n'/, }"
  fi
fi

echo "Installing the host's tools"
if ! "$target/.venv/bin/python" -c "$fits" 2>/dev/null; then
  rm -rf "$target/.venv"
  "$python" -m venv "$target/.venv"
fi
PIP_NO_INDEX=1 PIP_FIND_LINKS=$bundle/wheels "$target/.venv/bin/python" "$target/env/install.py" host
# Last, so that a run that was cut off is not taken for an installed kit.
if [[ -e $target/.env ]]; then
  cp -p "$target/.env" "$target/.env.part"
  {
    echo "$image"
    sed -E "/$image_line/d" "$target/.env"
  } >"$target/.env.part"
  mv "$target/.env.part" "$target/.env"
  echo "Kept: .env, but for $image"
  others=$(grep -v -x -F -f "$target/.env" "$bundle/settings.env" | grep -v '^#') || true
  if [[ $others ]]; then echo "Not taken over from the bundle's settings.env: ${others//$'\n'/, }"; fi
else
  cp "$bundle/settings.env" "$target/.env"
fi
tar -tf "$bundle/kit.tar" | sort >"$target/.installed"
echo "$done. Next: cd $target && make up"
