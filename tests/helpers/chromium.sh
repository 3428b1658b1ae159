#!/usr/bin/env bash
# Debian's Chromium for the tests of the report in a browser, unless there is a Chromium already.
#
#   tests/helpers/chromium.sh            about a minute; needs root and apt
#
# Where it cannot be had, that is told in one line and by status 2; nothing waits longer than the
# patience below. The tests then skip.
set -euo pipefail

PATIENCE_S=300
NAMES="chromium chromium-browser google-chrome chrome"  # as in tests/helpers/browser.py
PACKAGES="chromium fonts-dejavu-core"                   # it brings no letters of its own

refuse() {
    echo "error: no Chromium for the browser tests: $1" >&2
    exit 2
}

apt() {
    DEBIAN_FRONTEND=noninteractive timeout "$PATIENCE_S" apt-get --quiet --quiet "$@" < /dev/null
}

for name in $NAMES; do
    if command -v "$name" > /dev/null; then exit 0; fi
done
[ "$(id -u)" = 0 ] || refuse "installing it needs root"
command -v apt-get > /dev/null || refuse "no apt-get here"
apt update || refuse "apt-get update failed"
# shellcheck disable=SC2086  (several words)
apt install --yes --no-install-recommends $PACKAGES || refuse "apt-get install failed"
