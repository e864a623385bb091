"""The shipped SROS2 policy, read as its users' tools read it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

from smwm_ros.resources import share_directory

FILE = share_directory() / "config" / "security" / "policies" / "smwm.policy.xml"
ACTION_SERVICES = ("send_goal", "cancel_goal", "get_result")
ACTION_TOPICS = ("feedback", "status")


class Policy:
    """Who may do what: verbs are publish, subscribe, reply, request; names are full."""

    def __init__(self, namespace: str = "", clock: str = "/clock", path: Path = FILE) -> None:
        text = path.read_text(encoding="utf-8")
        for entity, old, new in (
            ("namespace", "/", f"/{namespace}"),
            ("clock", "/clock", clock),
        ):
            line = f'<!ENTITY {entity} "{old}">'
            assert text.count(line) == 1
            text = text.replace(line, f'<!ENTITY {entity} "{new}">')
        self.root = ElementTree.fromstring(text)
        self.rules: dict[str, dict[str, set[str]]] = {}
        for enclave in self.root.iter("enclave"):
            rules = self.rules.setdefault(enclave.attrib["path"].rpartition("/")[2], {})
            for profile in enclave.iter("profile"):
                ns, node = profile.attrib["ns"].rstrip("/"), profile.attrib["node"]
                for block in profile:
                    for expression in block:
                        name = (expression.text or "").replace("~", f"{ns}/{node}")
                        full = name if name.startswith("/") else f"{ns}/{name}"
                        for verb, qualifier in block.attrib.items():
                            assert qualifier == "ALLOW"
                            for what, names in _spell_out(verb, full).items():
                                rules.setdefault(what, set()).update(names)

    def allows(self, enclave: str, verb: str, name: str) -> bool:
        """Tell whether an enclave may do something; what is not allowed is denied."""
        return any(fnmatchcase(name, pattern) for pattern in self.rules[enclave].get(verb, ()))


def _spell_out(verb: str, name: str) -> dict[str, list[str]]:
    """Turn what is allowed with an action into its topics and services."""
    services = [f"{name}/_action/{service}" for service in ACTION_SERVICES]
    topics = [f"{name}/_action/{topic}" for topic in ACTION_TOPICS]
    if verb == "execute":
        return {"reply": services, "publish": topics}
    if verb == "call":
        return {"request": services, "subscribe": topics}
    return {verb: [name]}
