"""The restricted Pod Security Standard, as far as a pod's own fields tell."""

from __future__ import annotations

from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(pod: dict[str, Any]) -> list[str]:
    """Return what a pod's spec has that the restricted standard forbids, or lacks that it asks for."""
    found = [f"{name} is set" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    for volume in pod.get("volumes", []):
        found += [f"volume {volume['name']} is a {kind}" for kind in volume.keys() - {"name"} - _VOLUMES]
    whole = pod.get("securityContext", {})
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        context = {**whole, **container.get("securityContext", {})}
        capabilities = context.get("capabilities", {})
        for wrong, text in (
            (context.get("runAsNonRoot") is not True, "may run as root"),
            (context.get("runAsUser") == 0, "runs as root"),
            (context.get("allowPrivilegeEscalation") is not False, "may gain privileges"),
            (context.get("privileged", False), "is privileged"),
            (capabilities.get("drop") != ["ALL"], "keeps capabilities"),
            (not set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}, "adds capabilities"),
            (context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"), "has no seccomp"),
            (any("hostPort" in port for port in container.get("ports", [])), "has a host port"),
        ):
            if wrong:
                found.append(f"container {container['name']} {text}")
    return found
