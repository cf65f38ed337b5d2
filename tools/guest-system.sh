#!/usr/bin/env bash
# Fetch the parts of the system that the functional tests' guests boot: Debian's kernel for clouds,
# a few of its modules, and busybox. Quick when they are there already.
#
# They are unpacked into the user's cache. Installed, the kernel would bring udev, initramfs-tools
# and hooks in /boot to a machine that never boots it.
set -euo pipefail

system=${XDG_CACHE_HOME:-$HOME/.cache}/cepheid-tests/guest-system
# What tests/functional/tiny_guest.py loads.
modules='virtio|virtio_ring|virtio_pci|virtio_pci_legacy_dev|virtio_pci_modern_dev|virtio_blk'
modules+='|failover|net_failover|virtio_net|button|evdev'

say() { printf '%s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# The package that linux-image-cloud-amd64 stands for at present.
kernel_package() {
    apt-cache show --no-all-versions linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^Depends:.*\b\(linux-image-[0-9][^ ,]*\).*/\1/p'
}

[ ! -e "$system/complete" ] || exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "the tests' guests boot Debian's kernel, which only a Debian can fetch; on another system put
bzImage as vmlinuz, busybox, and these modules into $system, and make a file 'complete' there:
    ${modules//|/ }"

mkdir -p "$(dirname "$system")"
work=$(mktemp -d "$system.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/debs" "$work/system"

# As root apt would hand over to a user who cannot write here, and complain.
download() {
    local kernel
    kernel=$(kernel_package)
    [ -n "$kernel" ] || return 1
    say "Fetching the system of the tests' guests: $kernel busybox-static"
    (cd "$work/debs" &&
        apt-get download -qq -o "APT::Sandbox::User=$(id -un)" "$kernel" busybox-static)
}

# apt may know of none, or of those that the archive no longer has.
if ! download; then
    [ "$(id -u)" -eq 0 ] ||
        fail "apt cannot fetch linux-image-cloud-amd64 and busybox-static; as root: apt-get update"
    apt-get update -qq || fail "apt-get update failed; see its message above"
    download || fail "apt cannot fetch linux-image-cloud-amd64 and busybox-static; see its message
above, and whether its sources name Debian's main archive"
fi
for package in "$work"/debs/*.deb; do
    dpkg-deb -x "$package" "$work/unpacked"
done
cp "$work"/unpacked/boot/vmlinuz-* "$work/system/vmlinuz"
cp "$work/unpacked/bin/busybox" "$work/system/"
find "$work/unpacked/lib/modules" -regextype posix-extended -regex ".*/($modules)\.ko" \
    -exec cp {} "$work/system/" \;
touch "$work/system/complete"
rm -rf "$system"
mv -T "$work/system" "$system"
