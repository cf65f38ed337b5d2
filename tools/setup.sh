#!/usr/bin/env bash
# Set up what the Makefile's commands need: Debian packages, .venv, and cepheid in it.
# Quick when it is done already.
#
# Usage: tools/setup.sh demo|develop|test [packages]
#   demo     what 'make demo' needs: libvirt's library, the means to build its Python binding,
#            and qemu-img
#   develop  the same, and the tools for the fast tests and the checks
#   test     the same, and the servers that the functional tests start for themselves
# With 'packages' it ends when the Debian packages are there: root's part for another user's clone.
set -euo pipefail
cd "$(dirname "$0")/.."

build_packages=(gcc libc6-dev libvirt-dev libvirt0 pkg-config qemu-utils)
# None of these is to run as a service: the daemons are there for the tests to start.
server_packages=(libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86 iproute2
    mariadb-server-core mariadb-client-core postgresql rabbitmq-server chromium fonts-dejavu-core
    git e2fsprogs mount systemd)

say() { printf '%s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# The packages among $@ that dpkg does not have.
missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            printf '%s\n' "$package"
    done
}

# Without dpkg: what of the same is not on this machine, as far as its programs tell.
missing_programs() {
    local program
    command -v cc gcc >/dev/null || say "a C compiler"
    command -v pkg-config >/dev/null || say "pkg-config"
    pkg-config --exists libvirt 2>/dev/null || say "libvirt's headers"
    command -v qemu-img >/dev/null || say qemu-img
    [ "$part" = test ] || return 0
    for program in libvirtd qemu-system-x86_64 ip nsenter setpriv unshare mariadbd initdb rabbitmq-server epmd chromium \
        git mkfs.ext4 chattr losetup mount systemd-analyze systemd-sysusers systemd-tmpfiles; do
        PATH=$PATH:/usr/sbin:/sbin:$(echo /usr/lib/postgresql/*/bin):/usr/lib/rabbitmq/bin command -v "$program" >/dev/null || say "$program"
    done
}

# RabbitMQ's package, and Erlang's with it, would start a daemon now and at every boot. Their units are
# masked, and until the calling shell ends no package starts anything; a policy that is there already
# stays.
start_nothing() {
    local unit units=(rabbitmq-server.service)
    # Where there was an Erlang before, somebody may use its daemon.
    command -v epmd >/dev/null || units+=(epmd.service epmd.socket)
    say "Masked, so that they do not start: ${units[*]}; 'systemctl unmask' undoes that"
    mkdir -p /etc/systemd/system
    for unit in "${units[@]}"; do
        [ -e "/etc/systemd/system/$unit" ] || ln -s /dev/null "/etc/systemd/system/$unit"
    done
    [ ! -e /usr/sbin/policy-rc.d ] || return 0
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
}

# A shell of its own, for what start_nothing leaves to be tidied up.
install_packages() (
    [[ " $* " != *" rabbitmq-server "* ]] || start_nothing
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || say "setup: apt-get update failed; going on with the lists there are"
    apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "$@" >/dev/null
)

provide_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        fail "these Debian packages are missing: ${missing[*]}
As root, this installs them and starts no service of theirs; then run this again:
    $PWD/tools/setup.sh $part packages
By hand it is this, after apt-get update:
    apt-get install --no-install-recommends ${missing[*]}"
    fi
    say "Installing Debian packages: ${missing[*]}"
    if [[ " ${missing[*]} " == *" postgresql "* && ! -e /etc/postgresql-common ]]; then
        # PostgreSQL's package would make a cluster and start it.
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
    fi
    install_packages "${missing[@]}" ||
        fail "apt-get could not install them; see its message above"
}

usage="usage: tools/setup.sh demo|develop|test [packages]"
part=${1:-} only=${2:-}
case $only in '' | packages) ;; *) fail "$usage" ;; esac
packages=("${build_packages[@]}")
extras=all,test
case $part in
    demo) extras=all ;;
    develop) ;;
    test) packages+=("${server_packages[@]}") ;;
    *) fail "$usage" ;;
esac

python=$(find_python) || python=
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    case $(readlink -f "${python:-/usr/bin/python3}") in
        # Debian's own Python has its headers and its venv in packages of their own.
        /usr/bin/python3.*) version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
                            packages+=("python$version-dev" "python$version-venv") ;;
        /usr/bin/*) packages+=(python3 python3-dev python3-venv) ;;
    esac
    provide_packages "${packages[@]}"
else
    missing=$(missing_programs)
    [ -z "$missing" ] || fail "this is not Debian, so install these yourself, then run this again:
$missing"
fi
[ "$only" != packages ] || exit 0
[ "$part" != test ] || tools/guest-system.sh
[ -n "$python" ] || python=$(find_python) ||
    fail "Python 3.11 or newer is needed, and this machine has none; install one, or put it first in PATH"

if [ ! -x .venv/bin/python ]; then
    say "Making the virtual environment .venv with $python"
    "$python" -m venv .venv || { rm -rf .venv; fail "$python could not make a virtual environment"; }
fi

# What is installed is on record with the files that it came from.
stamp=.venv/cepheid-installed
sources=$(cat setup.cfg pyproject.toml | sha256sum | cut -d ' ' -f 1)
if ! grep -qxF "$extras $sources" "$stamp" 2>/dev/null; then
    for path in .venv cepheid.egg-info; do
        [ ! -e "$path" ] || [ -w "$path" ] ||
            fail "$path belongs to $(stat -c %U "$path"), who ran this here before; 'make clean' as that user, then
run this again"
    done
    say "Installing cepheid[$extras] into .venv (some minutes the first time)"
    .venv/bin/python -m pip install -q --disable-pip-version-check -e ".[$extras]" ||
        fail "pip could not install cepheid; see its message above"
    # Whoever has the test extra has the rest as well.
    printf '%s\n' "$extras $sources" "all $sources" > "$stamp"
fi
