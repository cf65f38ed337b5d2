# SPDX-License-Identifier: Apache-2.0
"""Run by real Nova's Python: what nova-compute does in the storage of its instances.

storage.py NOVA_CONF register HOST   enters a host into the registry of the storage's users
storage.py NOVA_CONF users           prints the hosts that Nova takes for its users, as JSON
storage.py NOVA_CONF hold NAME       takes the lock of a file, says so, keeps it until told to end
storage.py NOVA_CONF pass            runs Nova's own pass of the image cache, without any instance
"""

import json
import os
import sys

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

import nova.privsep
from nova import config, utils
from nova.virt import storage_users
from nova.virt.libvirt import imagecache


def hold(path, name):
    @utils.synchronized(name, external=True, lock_path=os.path.join(path, "locks"))
    def wait():
        print("held", flush=True)
        sys.stdin.read()

    wait()


def main():
    conf_file, command, *words = sys.argv[1:]
    config.parse_args(["nova", "--config-file", conf_file])
    path = config.CONF.instances_path
    # As root already; the daemon that Nova would ask is not there.
    nova.privsep.sys_admin_pctxt.set_client_mode(False)
    if command == "register":
        storage_users.register_storage_use(path, words[0])
    elif command == "users":
        print(json.dumps(storage_users.get_storage_users(path)))
    elif command == "hold":
        hold(path, words[0])
    else:
        manager = imagecache.ImageCacheManager()
        manager._list_running_instances = lambda context, instances: {
            "used_images": {},
            "instance_names": set(),
            "used_swap_images": set(),
            "used_ephemeral_images": set(),
        }
        manager.update(None, [])


if __name__ == "__main__":
    main()
