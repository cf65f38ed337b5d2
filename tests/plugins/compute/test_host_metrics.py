# SPDX-License-Identifier: Apache-2.0
from cepheid_plugins.compute import host_metrics


def told(seen):
    return {metric.name: metric.values for metric in host_metrics.of_host(seen)}


def test_nothing_is_told_of_a_host_that_was_not_seen():
    assert told(host_metrics.Seen()) == {"cepheid_instances": {}}


def test_what_was_seen_is_told_in_base_units():
    columns = {
        "vcpus": 8,
        "vcpus_used": 2,
        "memory_mb": 1024,
        "memory_mb_used": 512,
        "local_gb": 10,
        "local_gb_used": 1,
    }
    assert told(host_metrics.Seen({("active", "running"): 3}, columns)) == {
        "cepheid_instances": {("active", "running"): 3},
        "cepheid_host_vcpus": {(): 8},
        "cepheid_host_vcpus_used": {(): 2},
        "cepheid_host_memory_bytes": {(): 1 << 30},
        "cepheid_host_memory_used_bytes": {(): 1 << 29},
        "cepheid_host_disk_bytes": {(): 10 << 30},
        "cepheid_host_disk_used_bytes": {(): 1 << 30},
    }
