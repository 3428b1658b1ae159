#!/usr/bin/env bash
# A program of Debian that some tests need, unless it is there already.
#
#   tests/helpers/debian.sh chromium       the report in a browser; about a minute
#   tests/helpers/debian.sh debootstrap    the container's steps in a clean tree; seconds
#
# It needs root and apt. Where the program cannot be had, that is told in one line and by status 2;
# nothing waits longer than the patience below. The tests then skip.
set -euo pipefail

PATIENCE_S=300
wanted=${1-}
case "$wanted" in
    chromium)
        names="chromium chromium-browser google-chrome chrome"  # as in tests/helpers/browser.py
        packages="chromium fonts-dejavu-core"                   # it brings no letters of its own
        ;;
    debootstrap) names=debootstrap packages=debootstrap ;;
    *)
        echo "error: found '$wanted', expected chromium or debootstrap" >&2
        exit 2
        ;;
esac

refuse() {
    echo "error: no $wanted for the tests: $1" >&2
    exit 2
}

apt() {
    DEBIAN_FRONTEND=noninteractive timeout "$PATIENCE_S" apt-get --quiet --quiet "$@" < /dev/null
}

for name in $names; do
    if command -v "$name" > /dev/null; then exit 0; fi
done
[ "$(id -u)" = 0 ] || refuse "installing it needs root"
command -v apt-get > /dev/null || refuse "no apt-get here"
apt update || refuse "apt-get update failed"
# shellcheck disable=SC2086  (several words)
apt install --yes --no-install-recommends $packages || refuse "apt-get install failed"
