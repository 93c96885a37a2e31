#!/usr/bin/env bash
# Does what the Dockerfile does, without a container engine: the same installs, then everything as a non-root user
# without a network and without write access to the installation. Prints the sizes. Needs root (for unshare and setpriv).
#
#     bash tests/install_like_docker.sh [PYTHON]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:-python3.12}
work=$(mktemp -d /tmp/craft-docker.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# The Dockerfile's stage `source`.
mkdir "$work/source"
cp -r "$root"/{pyproject.toml,README.md,LICENSE,craft_onnx,converters,models} "$work/source"
"$python" -m pip wheel --quiet --no-cache-dir --no-deps --wheel-dir "$work/wheels" "$work/source"
wheel=$(ls "$work"/wheels/*.whl)

as_user() { # no network, user 10001, only a writable /tmp and the working folder
  (cd "$work/out" && unshare --net setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs \
    env -i PATH="$1/bin:/usr/bin:/bin" HOME=/nonexistent MPLCONFIGDIR=/tmp/matplotlib PYTHONDONTWRITEBYTECODE=1 "${@:2}")
}

for extras in cpu cpu,build; do
  place="$work/${extras/,/-}"
  "$python" -m venv "$place"
  "$place/bin/pip" install --quiet --no-cache-dir "$wheel[$extras]"
  mkdir -p "$work/out" && chown 10001:10001 "$work/out"
  echo "== [$extras]: $(du -sm "$place" | cut -f1) MB in the virtual environment, pip included"
  as_user "$place" craft-onnx check --quiet > "$work/check.json"
  echo "   craft-onnx check: passed"
done

as_user "$work/cpu-build" craft-onnx demo --quiet -o demo > /dev/null
echo "   craft-onnx demo: passed, offline, as user 10001"
as_user "$work/cpu" craft-onnx explain --quiet demo/bundle demo/pictures/bird-00.png -o explained > /dev/null
echo "   craft-onnx explain with [cpu] alone, on the demo's bundle: passed"
if as_user "$work/cpu" python -c 'import torch' 2> /dev/null || as_user "$work/cpu" python -c 'import tensorflow' 2> /dev/null; then
  echo "a framework is inside" >&2
  exit 1
fi
touch_installation() { as_user "$work/cpu" touch "$work/cpu/written" 2> /dev/null; }
if touch_installation; then echo "the installation is writable" >&2; exit 1; fi
