"""
Hold a running graph against the robot's contract: what is found, what was expected, and how to mend it.

Each check looks at one thing and gives one :class:`Finding`: all that is wrong is told at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from smwm_ros.contract import Contract
from smwm_ros.stack.findings import Finding, Level, fault, fine
from smwm_ros.stack.graph import Endpoint, Graph
from smwm_ros.stack.sensor_checks import judge_joint_names, judge_pictures, judge_rate, judge_stamps

JOINTS = "sensor_msgs/msg/JointState"
OWN = ("latent", "belief", "plan", "applied_action", "planner_status", "emergency_stopped", "unsafe_command")
"""Topics between the package's nodes."""
OBSERVERS = ("recorder", "smwm_doctor")
"""Nodes that listen to commands and do not obey them."""


class Inspection:
    """One robot's graph, and what should be in it."""

    def __init__(
        self,
        contract: Contract,
        graph: Graph,
        stacks: Mapping[str, Sequence[str]],
        namespace: str = "",
    ) -> None:
        """
        Prepare.

        Args:
            contract: of the robot.
            graph: what was seen.
            stacks: the nodes that each stack must have, by its name.
            namespace: of the robot.
        """
        self._contract = contract
        self._graph = graph
        self._prefix = f"/{namespace.strip('/')}".rstrip("/")
        at_gate = graph.topic(self._full("unsafe_command")).subscribers
        guards = f"{self._prefix}/action" in [end.node for end in at_gate]
        self._stacks = {name: nodes for name, nodes in stacks.items() if (name == "guard") == guards}
        """Those that may run: an action node that takes others' commands takes no plans."""
        known = {node for nodes in stacks.values() for node in nodes}
        names = {node.removeprefix(f"{self._prefix}/"): node for node in graph.nodes}
        self._here = {short: names[short] for short in sorted(known & names.keys())}
        """Full names of the package's nodes that are there, by the short ones."""

    def findings(self) -> dict[str, Finding]:
        """Return the findings by the name of their check; one alone where nothing of the robot runs."""
        observation, action = self._contract.observation, self._contract.action
        sensors = [part for part in (observation.image, observation.joints) if part is not None]
        topics = [self._graph.topic(self._full(part.topic)) for part in (*sensors, action)]
        if not self._here and not any(topic.publishers or topic.subscribers for topic in topics):
            return {"running robot": self._nothing()}
        found = {"nodes": self._nodes()}
        found |= {f"node {short}": self._node(node) for short, node in self._here.items()}
        found["clock"] = self._clock()
        guard = "guard" in self._stacks
        found |= {} if guard else self._camera()
        if observation.joints is not None and not (guard and not action.positions):
            found |= self._joints(observation.joints.topic, observation.joints.names)
        found["command listener"] = self._command_listener()
        found["command publisher"] = self._command_publisher()
        found["quality of service"] = self._quality()
        return found

    def _camera(self) -> dict[str, Finding]:
        image, images = self._contract.observation.image, self._graph.images
        found = {"camera": self._publisher(image.topic, image.type)}
        if images:
            found["camera picture"] = judge_pictures(self._contract, images)
            found["camera rate"] = judge_rate(self._contract, images, self._graph.time_stands)
            found["camera stamps"] = judge_stamps(self._contract, images, bool(self._graph.clocks))
        elif found["camera"].ok:
            found["camera"] = self._silent(image.topic)
        return found

    def _joints(self, topic: str, names: Sequence[str]) -> dict[str, Finding]:
        joints = self._graph.joints
        found = {"joints": self._publisher(topic, JOINTS)}
        if joints:
            found["joint names"] = judge_joint_names(names, joints)
            found["joint stamps"] = judge_stamps(self._contract, joints, bool(self._graph.clocks))
        elif found["joints"].ok:
            found["joints"] = self._silent(topic)
        return found

    def _full(self, topic: str) -> str:
        return topic if topic.startswith("/") else f"{self._prefix}/{topic}"

    def _nothing(self) -> Finding:
        return Finding(
            Level.warning,
            f"nothing of the robot {self._contract.name} runs in ROS domain {self._graph.domain}, "
            f"namespace {self._prefix or '/'}",
            "its driver or simulator, and the nodes, if it should run",
            "start it (`smwm up`); else see that ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE and the "
            "namespace are the same here and there",
        )

    def _nodes(self) -> Finding:
        if not self._here:
            return Finding(
                Level.warning,
                "a robot, and none of the nodes that drive it",
                "the nodes of a stack, if the robot should be driven",
                "start them: `smwm up robot`",
            )
        missing = {
            stack: [node for node in nodes if node not in self._here]
            for stack, nodes in self._stacks.items()
            if self._here.keys() <= set(nodes)
        }
        there = ", ".join(self._here)
        if not missing:
            return fault(
                f"{there}, which are not of one stack",
                f"those of one of the stacks {', '.join(self._stacks)}",
                "end one of the two that run here, or give each a namespace of its own",
            )
        twice = [node for node, count in Counter(self._graph.nodes).items() if count > 1]
        if doubled := [node for node in twice if node in self._here.values()]:
            return fault(
                f"two nodes are named {', '.join(doubled)}",
                "each once",
                "end one of the two stacks, or give each a namespace of its own; a node that was killed is "
                "shown for up to 20 s more",
            )
        stack, lacking = min(missing.items(), key=lambda item: len(item[1]))
        if lacking:
            return fault(
                f"{there}; {', '.join(lacking)} missing",
                f"all of the {stack} stack",
                "read their logs: they died, or are stopped; `smwm up` starts dead nodes again",
            )
        return fine(f"the {stack} stack: {there}")

    def _node(self, node: str) -> Finding:
        """Judge a node of ours by what it says of itself."""
        state, report = self._graph.states.get(node), self._graph.reports.get(node)
        if state is None or report is None:
            return fault(
                f"silent on {'its services' if state is None else '/diagnostics'}",
                f"an answer, and a report each second of {self._graph.seconds:g}",
                "it hangs, is stopped or was killed: read its log, and end it; `smwm up` starts it again",
            )
        if state != "active":
            step = "activate" if state == "inactive" else "configure"
            return fault(
                f"its lifecycle state is {state}",
                "active",
                f"`ros2 lifecycle set {node} {step}`; why it is not stands in its log",
            )
        if report.level:
            level = Level.warning if report.level == 1 else Level.fault
            return Finding(level, report.message, "a report without a fault", "see /diagnostics and its log")
        return fine("active")

    def _clock(self) -> Finding:
        graph = self._graph
        simulated = sorted(node for node, sim_time in graph.sim_time.items() if sim_time)
        system = sorted(node for node, sim_time in graph.sim_time.items() if not sim_time)
        if simulated and not graph.clocks:
            return fault(
                f"{', '.join(simulated)} go by /clock, and nobody publishes it",
                "a publisher of /clock, or use_sim_time: false",
                "start the simulator or `smwm play`, or start the nodes with use_sim_time:=false",
            )
        if simulated and system:
            return fault(
                f"{', '.join(simulated)} go by /clock, {', '.join(system)} by the system's time",
                "one time for all of them",
                "set use_sim_time alike in all of them",
            )
        if system and graph.clocks:
            return fault(
                f"{', '.join(graph.clocks)} publishes /clock, and {', '.join(system)} do not go by it",
                "/clock, and use_sim_time: true in all nodes; or neither",
                "start the nodes with use_sim_time:=true, or end what publishes /clock",
            )
        if len(graph.clocks) > 1:
            return fault(
                f"/clock has the publishers {', '.join(graph.clocks)}",
                "one",
                "end the others, or give each robot a namespace and a /clock of its own",
            )
        return fine(f"/clock, by {graph.clocks[0]}" if graph.clocks else "the system's time")

    def _publisher(self, topic: str, kind: str) -> Finding:
        """Judge whether somebody publishes what the contract says."""
        full = self._full(topic)
        publishers = self._graph.topic(full).publishers
        if not publishers:
            similar = sorted(
                name
                for name, other in self._graph.topics.items()
                if any(publisher.type == kind for publisher in other.publishers)
            )
            there = f"; of this type are published: {', '.join(similar)}" if similar else ""
            return fault(
                f"nobody publishes {full}{there}",
                f"{kind} from the robot's driver",
                "start the driver; or correct the topic in the contract, or remap it (-r) in the driver",
            )
        if wrong := [publisher for publisher in publishers if publisher.type != kind]:
            return fault(
                f"{full}: {_list(wrong)}",
                kind,
                "correct the type in the contract, or the driver",
            )
        if len(publishers) > 1:
            return fault(
                f"{full} has several publishers: {_list(publishers)}",
                "one",
                "end the others, or give them other topics",
            )
        return fine(f"{full}: {_list(publishers)}")

    def _silent(self, topic: str) -> Finding:
        full = self._full(topic)
        if self._graph.time_stands:
            return fine(f"no message on {full}: time stands still, as in lock-step until a command comes")
        return fault(
            f"no message on {full} in {self._graph.seconds:g} s, though it has a publisher",
            f"{self._contract.rate:g} a second",
            "see whether the driver runs (its log), is paused or was stopped; between machines, whether "
            "the firewall lets UDP through",
        )

    def _command_listener(self) -> Finding:
        action = self._contract.action
        full = self._full(action.topic)
        listeners = [
            subscriber
            for subscriber in self._graph.topic(full).subscribers
            if subscriber.node.rpartition("/")[2] not in OBSERVERS
        ]
        if not listeners:
            return Finding(
                Level.fault if "action" in self._here else Level.warning,
                f"nobody listens to {full}",
                f"the robot's driver, to {action.type}",
                "start the driver (the controller); or correct the topic in the contract, or remap it",
            )
        if wrong := [listener for listener in listeners if listener.type != action.type]:
            return fault(
                f"{full}: {_list(wrong)}",
                action.type,
                "correct the type in the contract, or the driver",
            )
        return fine(f"{full}: {_list(listeners)}")

    def _command_publisher(self) -> Finding:
        full = self._full(self._contract.action.topic)
        publishers = self._graph.topic(full).publishers
        own = f"{self._prefix}/action"
        if others := [publisher for publisher in publishers if publisher.node != own]:
            return Finding(
                Level.fault if "action" in self._here else Level.warning,
                f"{full} is published by {_list(others)}",
                f"by {own} alone: what else is sent is neither limited nor watched",
                "end it, or send it through the action node; docs/security.md says how to forbid it",
            )
        if wrong := [publisher for publisher in publishers if publisher.type != self._contract.action.type]:
            return fault(
                f"{full}: {_list(wrong)}",
                self._contract.action.type,
                "start the nodes with the contract that is checked here",
            )
        return fine(f"{full}: {_list(publishers)}" if publishers else f"nobody commands {full}")

    def _quality(self) -> Finding:
        contract = self._contract
        observation = contract.observation
        streams = (observation.image, observation.depth, observation.camera_info, observation.joints)
        topics = [*(part.topic for part in streams if part is not None), contract.action.topic, *OWN]
        wrong = [
            f"{self._full(topic)}: {mismatch}"
            for topic in topics
            for mismatch in self._graph.topic(self._full(topic)).mismatches
        ]
        if wrong:
            return fault(
                "; ".join(wrong),
                "publishers that offer at least what their subscribers ask for",
                "for sensors set sensor_reliability:=best_effort; or let the driver publish reliably",
            )
        return fine("fits at all ends")


def _list(endpoints: Sequence[Endpoint]) -> str:
    return ", ".join(f"{endpoint.node} ({endpoint.type})" for endpoint in endpoints)
