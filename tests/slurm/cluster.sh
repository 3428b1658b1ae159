#!/usr/bin/env bash
# A real Slurm on this machine alone, for tests: Debian's packages, eight false GPUs, no database.
# Jobs of its partition 'urgent' take the place of those of 'gpu', which Slurm then starts again.
#
#   tests/slurm/cluster.sh install           Debian's packages, unless there is a Slurm already
#   tests/slurm/cluster.sh start FOLDER      prints nothing; 'sinfo' works when it returns
#   tests/slurm/cluster.sh stop FOLDER       returns when all its processes have ended
#
# Everything lies in FOLDER, but for a link /etc/slurm/slurm.conf: Snakemake's plugin strips
# SLURM_CONF from a job's environment. Where that file exists already, or a Slurm runs, nothing is
# touched. Where there can be none the reason is told in one line and by status 2; status 1 is an
# error.
set -euo pipefail

LINK=/etc/slurm/slurm.conf
POLICY=/usr/sbin/policy-rc.d
PROGRAMS="slurmctld slurmd munged sbatch"
PACKAGES="munge slurmctld slurmd slurm-client"
PATIENCE_S=300  # for each call of apt-get

refuse() {
    echo "error: $1" >&2
    exit 2
}

install() {
    if installed; then return; fi
    [ "$(id -u)" = 0 ] || refuse "installing Slurm needs root"
    command -v apt-get > /dev/null || refuse "no apt-get: install ${PROGRAMS// /, }"
    apt update || refuse "apt-get update failed"
    # the packages must not start services of their own
    if [ ! -e "$POLICY" ]; then
        trap 'rm -f "$POLICY"' EXIT
        printf '#!/bin/sh\nexit 101\n' > "$POLICY"
        chmod +x "$POLICY"
    fi
    # shellcheck disable=SC2086  (several words)
    apt install --yes --no-install-recommends $PACKAGES || refuse "apt-get install failed"
}

installed() {
    for program in $PROGRAMS; do command -v "$program" > /dev/null || return 1; done
}

apt() {
    DEBIAN_FRONTEND=noninteractive timeout "$PATIENCE_S" apt-get --quiet --quiet "$@" < /dev/null
}

configure() {
    local folder=$1 host memory
    host=$(hostname -s)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    mkdir -p "$folder"/{run,log,state,spool}
    chmod 755 "$folder" "$folder/run"
    dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
    chmod 400 "$folder/munge.key"
    for gpu in $(seq 0 7); do
        [ -e "$folder/gpu$gpu" ] || mknod "$folder/gpu$gpu" c 1 3 || refuse "no mknod here"
    done
    cat > "$folder/gres.conf" <<EOF
NodeName=$host Name=gpu Type=fake File=$folder/gpu[0-7]
EOF
    cat > "$folder/slurm.conf" <<EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.sock,cred_expire=10
SlurmctldPort=16817
SlurmdPort=16818
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=3600
KillWait=5
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=$memory Gres=gpu:fake:8
PartitionName=DEFAULT Nodes=$host DefMemPerCPU=200 MaxTime=INFINITE State=UP
PartitionName=gpu Default=YES
PartitionName=urgent PriorityTier=2
EOF
}

start() {
    local folder
    folder=$(realpath -m "$1")
    installed || refuse "one of $PROGRAMS is missing: 'make test-slurm' installs them"
    [ "$(id -u)" = 0 ] || refuse "a Slurm for tests needs root, as its jobs change users"
    if [ -e "$LINK" ] || [ -L "$LINK" ]; then
        refuse "$LINK exists: this machine has a Slurm, or a test's was not stopped"
    fi
    for pid in $(pidof slurmctld slurmd || true); do
        if lives "$pid"; then refuse "a Slurm runs on this machine: process $pid"; fi
    done
    configure "$folder"
    mkdir -p "$(dirname "$LINK")"
    ln -s "$folder/slurm.conf" "$LINK"
    # unless it works; expanded now, as a function's variables are gone when it ends
    # shellcheck disable=SC2064
    trap "stop ${folder@Q}" EXIT
    munged --force --key-file="$folder/munge.key" --socket="$folder/run/munge.sock" \
        --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" \
        --seed-file="$folder/run/munged.seed"
    slurmctld -f "$folder/slurm.conf"
    slurmd -f "$folder/slurm.conf"  # gres.conf is looked for beside it
    for _ in $(seq 100); do
        if sinfo --noheader --format=%T 2> "$folder/log/sinfo.log" | grep -q '^idle$'; then
            trap - EXIT
            return 0
        fi
        sleep 0.1
    done
    for log in "$folder"/log/*.log; do tail -n 20 "$log" >&2; done
    echo "error: Slurm did not start within ten seconds" >&2
    exit 1
}

stop() {
    local folder pid
    folder=$(realpath -m "$1")
    [ "$(readlink "$LINK" || true)" = "$folder/slurm.conf" ] || return 0
    if [ -e "$folder/run/slurmctld.pid" ]; then
        scancel --user=root 2> "$folder/log/scancel.log" || true
        for _ in $(seq 100); do  # longer than KillWait
            [ -n "$(squeue --noheader 2> "$folder/log/squeue.log" || true)" ] || break
            sleep 0.2
        done
    fi
    for daemon in slurmd slurmctld munged; do
        pid=$(cat "$folder/run/$daemon.pid" 2> "$folder/log/stop.log" || true)
        if [ "$pid" ]; then end "$pid"; fi
    done
    rm -f "$LINK"
    rmdir --ignore-fail-on-non-empty "$(dirname "$LINK")"
}

end() {
    kill "$1" 2> /dev/null || return 0
    for _ in $(seq 50); do
        if ! lives "$1"; then return 0; fi  # in a trap a bare one repeats what set it off
        sleep 0.1
    done
    kill -KILL "$1" || true
}

lives() {  # a zombie does not
    [ -e "/proc/$1/stat" ] && ! grep -q '^State:[[:space:]]Z' "/proc/$1/status" 2> /dev/null
}

case ${1:-} in
    install) install ;;
    start | stop) "$1" "$2" ;;
    *) sed -n '2,11p' "$0"; exit 2 ;;
esac
