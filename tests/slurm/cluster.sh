#!/usr/bin/env bash
# A real Slurm on this machine alone, for tests: Debian's packages, eight false GPUs, no database.
#
#   tests/slurm/cluster.sh install           Debian's packages, unless there is a Slurm already
#   tests/slurm/cluster.sh start FOLDER      prints nothing; 'sinfo' works when it returns
#   tests/slurm/cluster.sh stop FOLDER       returns when all its processes have ended
#
# Everything lies in FOLDER, but for a link /etc/slurm/slurm.conf: Snakemake's plugin strips
# SLURM_CONF from a job's environment. Where that file exists already, or a Slurm runs, nothing is
# touched. What is missing is told in one line and by status 2.
set -euo pipefail

LINK=/etc/slurm/slurm.conf

refuse() {
    echo "error: $1" >&2
    exit 2
}

install() {
    if command -v slurmctld > /dev/null; then return; fi
    [ "$(id -u)" = 0 ] || refuse "installing Slurm needs root"
    command -v apt-get > /dev/null || refuse "no apt-get: install slurmctld, slurmd and munged"
    # the packages must not start services of their own
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod +x "$policy"
        made=yes
    fi
    apt-get install --yes --quiet --no-install-recommends munge slurmctld slurmd slurm-client
    if [ "$made" ]; then rm "$policy"; fi
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
AuthInfo=socket=$folder/run/munge.sock
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
JobRequeue=0
MinJobAge=3600
KillWait=5
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=$memory Gres=gpu:fake:8
PartitionName=gpu Nodes=$host Default=YES DefMemPerCPU=200 MaxTime=INFINITE State=UP
EOF
}

start() {
    local folder running
    folder=$(realpath -m "$1")
    for program in slurmctld slurmd munged; do
        command -v "$program" > /dev/null || refuse "no $program: 'make test-slurm' installs it"
    done
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
    trap 'stop "$folder"' EXIT  # unless it works
    munged --force --key-file="$folder/munge.key" --socket="$folder/run/munge.sock" \
        --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" \
        --seed-file="$folder/run/munged.seed"
    slurmctld -f "$folder/slurm.conf"
    slurmd -f "$folder/slurm.conf"  # gres.conf is looked for beside it
    for _ in $(seq 100); do
        if sinfo --noheader --format=%T 2> "$folder/log/sinfo.log" | grep -q '^idle$'; then
            trap - EXIT
            return
        fi
        sleep 0.1
    done
    for log in "$folder"/log/*.log; do tail -n 20 "$log" >&2; done
    refuse "Slurm did not start within ten seconds"
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
        if ! lives "$1"; then return; fi
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
    *) sed -n '2,10p' "$0"; exit 2 ;;
esac
