#!/usr/bin/env bash
# Other people's clients against a fresh service; ends with the first one that is answered wrongly.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
made="$root/build/clients"
port=${VLIB_PORT:-8377}
data=$(mktemp -d)
chmod 755 "$data"

"$root/.venv/bin/vlibrary" serve --port "$port" --data-dir "$data/data" >"$data/log" 2>&1 &
service=$!
trap 'kill $service; wait $service || true; rm -rf "$data"' EXIT
for _ in $(seq 300); do
  if curl --noproxy '*' --silent --fail "http://127.0.0.1:$port/readyz" >/dev/null; then break; fi
  kill -0 $service || { cat "$data/log"; exit 1; }
  sleep 1
done
export VLIB_URL="http://127.0.0.1:$port"
LITELLM_LOCAL_MODEL_COST_MAP=True "$made/venv/bin/python" "$here/python_clients.py" "$VLIB_URL"
cp "$here/node_clients.mjs" "$made/node/"
(cd "$made/node" && node node_clients.mjs)
