#!/usr/bin/env bash
# Two Ray nodes on this machine, on loopback, behind a token: a cluster to try things on before paying for one.
#   eval "$(cluster/local.sh start --cpus 2 --gpus 1)"   # 2 CPUs and a GPU on each node; a GPU need not exist
#   gitdist run studies/quickstart.yaml                  # here, or with ray[default] as a job:
#   ray job submit --working-dir studies -- gitdist run quickstart.yaml --results /tmp/results
#   cluster/local.sh stop
# Everything of it lies in the folder GITDIST_LOCAL (default: /tmp/gitdist-local-UID); another folder is another cluster. Its
# processes are known by that folder in their environment, or by the files that they write there, so that `stop` ends no
# other Ray. Ray listens on every address of the machine, whatever it is told: the token is what keeps others out.
set -Eeuo pipefail

usage() { echo "usage: local.sh start [--cpus N] [--gpus N] | stop" >&2; exit 2; }
refuse() { echo "local.sh: $1" >&2; exit 2; }

home=$(realpath -m "${GITDIST_LOCAL:-/tmp/gitdist-local-$(id -u)}")
mark="GITDIST_LOCAL_CLUSTER=$home"

# The processes that carry the mark, or write a file in a node's folder (all write logs): the title that Ray gives some of
# them overwrites their environment. Zombies have neither.
members() {
  local file flags
  {
    grep -lzxF "$mark" /proc/[0-9]*/environ || true
    find /proc/[0-9]*/fd \( -lname "$home/2/*" -o -lname "$home/3/*" \) || true
  } 2>/dev/null | while read -r file; do
    case $file in
      */fd/*)
        flags=$(sed -n 's/^flags:[[:space:]]*//p' "${file%/fd/*}/fdinfo/${file##*/}" 2>/dev/null) || continue
        (((0${flags:-0} & 3) != 0)) || continue # open for reading: a user looks at a log
        ;;
    esac
    file=${file#/proc/}
    echo "${file%%/*}"
  done | sort -un
}

free_ports() { # so that nothing falls back to a port that another Ray may have
  python - "$1" <<'PY'
import socket, sys
free = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in free:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in free))
PY
}

# Of 127.0.0.1 Ray would make the machine's address on the network; other loopback addresses it leaves alone. Each node has
# a folder of its own: in one folder, two nodes take each other's working directories away.
start_node() { # ADDRESS CPUS GPUS RAY-OPTION...
  local address=$1 cpus=$2 gpus=$3 listen grpc
  shift 3
  read -r listen grpc <<<"$(free_ports 2)"
  env "$mark" ray start "$@" --node-ip-address="$address" --num-cpus="$cpus" --num-gpus="$gpus" --temp-dir="$home/${address##*.}" \
    --object-store-memory=$((256 * 1024 * 1024)) --disable-usage-stats --min-worker-port=0 --max-worker-port=0 \
    --dashboard-agent-listen-port="$listen" --dashboard-agent-grpc-port="$grpc" >>"$home/start.log" 2>&1
}

start() {
  local cpus=2 gpus=0 port client_port jobs_port client=() dashboard=(--include-dashboard=false) jobs=""
  while [ $# -gt 0 ]; do
    case "$1 ${2-}" in
      "--cpus "[0-9]*) cpus=$2 ;;
      "--gpus "[0-9]*) gpus=$2 ;;
      *) usage ;;
    esac
    shift 2
  done
  [ ${#home} -le 36 ] || refuse "GITDIST_LOCAL must have at most 36 characters (Ray's sockets lie below it), but it is '$home'"
  [ -z "$(members)" ] || refuse "a cluster runs in '$home' already; end it with: local.sh stop"
  umask 077
  mkdir -p "$home"
  [ -O "$home" ] || refuse "'$home' must be yours, but it belongs to another user; name another folder in GITDIST_LOCAL"
  chmod 700 "$home"
  : >"$home/start.log"
  python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$home/token"
  unset RAY_ADDRESS RAY_AUTH_TOKEN
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$home/token
  trap 'stop; echo "local.sh: Ray did not start; see $home/start.log" >&2' ERR
  read -r port client_port jobs_port <<<"$(free_ports 3)"
  if python -c 'import grpc' 2>/dev/null; then client=(--ray-client-server-port="$client_port"); fi # without, it has no such server
  if python -c 'import aiohttp_cors' 2>/dev/null; then # ray[default]: the dashboard with its Jobs API
    dashboard=(--dashboard-host=127.0.0.1 --dashboard-port="$jobs_port")
    jobs=" RAY_API_SERVER_ADDRESS=http://127.0.0.1:$jobs_port"
  fi
  start_node 127.0.0.2 "$cpus" "$gpus" --head --port="$port" "${dashboard[@]}" "${client[@]}"
  start_node 127.0.0.3 "$cpus" "$gpus" --address="127.0.0.2:$port"
  trap - ERR
  echo "Ray runs at 127.0.0.2:$port: 2 nodes, each of $cpus CPUs and $gpus GPUs. Leave it with: local.sh stop" >&2
  echo "export RAY_ADDRESS=127.0.0.2:$port RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH='$home/token'$jobs"
}

stop() {
  local signal pause
  for signal in TERM KILL; do
    for pause in 0 0.5 0.5 1 1 1; do
      [ -n "$(members)" ] || break 2
      # shellcheck disable=SC2046  # one argument a process
      [ "$pause" != 0 ] || kill -s "$signal" $(members) 2>/dev/null || true
      sleep "$pause"
    done
  done
  rm -rf "$home/2" "$home/3" "$home/token"
}

case "${1-}" in
  start) shift; start "$@" ;;
  stop) [ $# -eq 1 ] || usage; stop ;;
  *) usage ;;
esac
