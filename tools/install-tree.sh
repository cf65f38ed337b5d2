#!/usr/bin/env bash
# Lay a wheel of cepheid out in a directory as a Debian package would, with nothing but pip.
#
# Usage: [PYTHON=a Python that has pip] tools/install-tree.sh WHEEL DIRECTORY
#
# For whoever packages it: doc/source/packaging.rst says which part belongs into which package.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: tools/install-tree.sh WHEEL DIRECTORY" >&2; exit 2; }
wheel=$1 tree=$2
modules=$tree/usr/lib/python3/dist-packages

# pip puts what is no module there as well; it is moved to its place.
"${PYTHON:-python3}" -m pip install -q --no-deps --no-compile --no-index --target "$modules" "$wheel"
share=$modules/share/cepheid
rm -rf "$modules/bin"
# pip's own notes: where the wheel lay on this machine, and files that are elsewhere now.
rm -f "$modules"/cepheid-*.dist-info/{direct_url.json,INSTALLER,RECORD,REQUESTED}

install -d "$tree/usr/bin"
cat > "$tree/usr/bin/cepheid" <<'PROGRAM'
#!/usr/bin/python3
import sys

from cepheid.__main__ import main

sys.exit(main())
PROGRAM
chmod 755 "$tree/usr/bin/cepheid"

install -D -m 644 "$share/cepheid.service" "$tree/usr/lib/systemd/system/cepheid.service"
install -D -m 644 "$share/cepheid.sysusers" "$tree/usr/lib/sysusers.d/cepheid.conf"
install -D -m 644 "$share/cepheid.tmpfiles" "$tree/usr/lib/tmpfiles.d/cepheid.conf"

install -d -m 750 "$tree/etc/cepheid"
cat > "$tree/etc/cepheid/cepheid.conf" <<'CONF'
# Every option, with its default: /usr/share/cepheid/cepheid.conf.sample
[DEFAULT]
CONF
chmod 640 "$tree/etc/cepheid/cepheid.conf"
install -m 644 "$share/logging.conf" "$tree/etc/cepheid/logging.conf"

# The rest is there to be read and copied from.
install -d "$tree/usr/share"
rm -f "$share"/cepheid.{service,sysusers,tmpfiles} "$share/logging.conf"
rm -rf "$tree/usr/share/cepheid"
mv "$share" "$tree/usr/share/cepheid"
rmdir "$modules/share"
