# SPDX-License-Identifier: Apache-2.0
"""`sdservice why` and `kubectl sdservice why`: explain what a service waits for, for how long, and what to do."""

import asyncio
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from sd_operator import naming, status
from sd_operator.api import Resource, Status, parse_live, recorded_status
from sd_operator.api.status import ConditionType, Reason
from sd_operator.builders.serve_config import serve_config_text
from sd_operator.cli.explain import Explanation, Row, explain
from sd_operator.cli.start_chart import chart
from sd_operator.errors import InvalidResource, KubeRayMissing, Refused, SdServiceError
from sd_operator.json_types import Json
from sd_operator.kube import (
    CORE_EVENT,
    DAEMON_SET,
    RAY_CLUSTER,
    RAY_SERVICE,
    SERVICE,
    Cluster,
    connect,
    default_namespace,
)
from sd_operator.kube.ownership import fills_cache
from sd_operator.naming import Key
from sd_operator.observe.effective_spec import of_ray_service
from sd_operator.observe.image_gate import hold
from sd_operator.observe.node_cache import NodeReader
from sd_operator.observe.observer import LiveChildren, Observer
from sd_operator.observe.preload_reader import DesiredImages, PreloadReader
from sd_operator.observe.snapshot import Snapshot
from sd_operator.ray import readiness_probe, serve_reader
from sd_operator.ray.probe_poller import ProbePoller
from sd_operator.ray.serve_poller import ServePoller
from sd_operator.ray.serve_reader import ServeReader
from sd_operator.reconcile.assessment import Assessor, Situation
from sd_operator.reconcile.rollout import Rollout
from sd_operator.reconcile.rollout_gate import RolloutGate
from sd_operator.reconcile.staging import replaces_in_place
from sd_operator.settings import Settings
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.preload import waiting_for_images

_TIMEOUT_SECONDS = 20.0
_KNOWN_TO_THE_OPERATOR = {Reason.NAME_CONFLICT, Reason.WAITING_FOR_DELETION, Reason.REFUSED}
_MOST_IMAGES: int = Settings.model_fields["node_status_max_images"].default
_MARKS = {True: ("✓", typer.colors.GREEN), False: ("✗", typer.colors.RED), None: ("?", typer.colors.YELLOW)}


def why(
    name: Annotated[str, typer.Argument(help="Name of the StableDiffusionService.", show_default=False)],
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", help="Namespace of the service. Default: the namespace of the context."
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context in the kubeconfig.")] = None,
    node_status_max_images: Annotated[
        int,
        typer.Option(
            min=-1,
            envvar="SDSERVICE_NODE_STATUS_MAX_IMAGES",
            help="nodeStatusMaxImages of the kubelets; the same value as in the operator's settings. -1: no limit.",
        ),
    ] = _MOST_IMAGES,
) -> None:
    """Explain the state of a StableDiffusionService from live objects. The command only reads and needs no operator."""
    explanation = asyncio.run(_explain(name, namespace, context, node_status_max_images))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines(explanation, width):
        typer.echo(line)


async def _explain(
    name: str, namespace: str | None, context: str | None, node_status_max_images: int
) -> Explanation:
    namespace = namespace or await default_namespace(context)
    async with connect(_TIMEOUT_SECONDS, context=context) as cluster:
        live = await cluster.get(SERVICE, namespace, name)
        if live is None:
            raise SdServiceError(f"namespace {namespace} has no StableDiffusionService {name}")
        return await gather(cluster, live, datetime.now(UTC), node_status_max_images)


async def gather(
    cluster: Cluster, live: Json, now: datetime, node_status_max_images: int = _MOST_IMAGES
) -> Explanation:
    """Read all objects of a service, and explain its state.

    Args:
        cluster: the API server.
        live: the resource.
        now: the time, UTC.
        node_status_max_images: maximum number of images that a kubelet lists; -1: no limit.
    """
    recorded = recorded_status(live)
    observer = _observer(cluster, node_status_max_images)
    computed, snapshot = await _assess(observer, live, recorded, now)
    return explain(live, computed, snapshot, await _events(cluster, live, snapshot), now)


async def _assess(observer: Observer, live: Json, recorded: Status, now: datetime) -> tuple[Status, Snapshot]:
    """The current status, and the snapshot that it was computed from."""
    assessor = Assessor(observer, lambda: now)
    try:
        resource = parse_live(live)
    except InvalidResource as error:
        return await assessor.of_refused(live, status.not_accepted(error), None, recorded)
    refusal = _recorded_refusal(live, recorded)
    if refusal is None:
        try:
            situation = await _situation(observer, resource, recorded, now)
            return await assessor.of_accepted(resource, situation, recorded)
        except KubeRayMissing as error:
            refusal = status.not_accepted(error)
    return await assessor.of_refused(live, refusal, resource.spec, recorded)


def _recorded_refusal(live: Json, recorded: Status) -> ConditionState | None:
    """The stored state of Accepted, if only the operator can find it out: a refused write or a name conflict."""
    if recorded.observed_generation != live["metadata"]["generation"]:
        return None
    for each in recorded.conditions:
        if each.type == ConditionType.ACCEPTED and each.reason in _KNOWN_TO_THE_OPERATOR:
            return ConditionState("False", Reason(each.reason), each.message)
    return None


def _observer(cluster: Cluster, node_status_max_images: int) -> Observer:
    serve, probe = serve_reader.through_api_server(cluster), readiness_probe.through_api_server(cluster)
    nodes = NodeReader(cluster)
    preloads = PreloadReader(cluster, nodes, node_status_max_images)
    polls = ServePoller(ServeReader(serve)), ProbePoller(probe)
    return Observer(cluster, *polls, nodes, preloads, waits=True)


async def _situation(observer: Observer, resource: Resource, recorded: Status, now: datetime) -> Situation:
    """The live objects of a service, and the pending changes of the operator according to the stored status."""
    key, cluster = Key(resource.namespace, resource.name), observer.cluster
    ray_service = await cluster.get(RAY_SERVICE, key.namespace, key.name)
    desired = DesiredImages(resource.spec, (_desired_image(recorded), *resource.spec.image_preload.images))
    children = await observer.children(key, resource.uid, ray_service)
    config = serve_config_text(resource.spec)
    return Situation(
        children=children,
        ray_clusters=await cluster.list(RAY_CLUSTER, key.namespace, naming.labels(resource.name)),
        token=await observer.token(key, resource.uid),
        asked=desired,
        held=await _on_hold(observer, resource, children, desired, recorded, now=now),
        in_place=replaces_in_place(resource, config, ray_service, recorded, now),
    )


async def _on_hold(
    observer: Observer,
    resource: Resource,
    children: LiveChildren,
    desired: DesiredImages,
    recorded: Status,
    *,
    now: datetime,
) -> status.Held | None:
    """The change that is on hold, if any.

    The stored status has the fact that a change waits. Whether it still waits for an image or weights is computed.
    """
    if recorded.observed_generation != resource.generation:
        return None
    live, reasons = children.ray_service, {each.reason: each for each in recorded.conditions}
    running = of_ray_service(live, preloads=True) if live else None
    if others := reasons.get(Reason.WAITING_FOR_OTHERS):
        return status.Held(ConditionState("False", Reason.WAITING_FOR_OTHERS, others.message), running)
    if Reason.WAITING_FOR_IMAGES in reasons:
        state = await observer.preloads.read(children.daemon_sets, [], desired)
        found = hold(resource.spec, state, recorded, now)
        return status.Held(waiting_for_images(found), running, found) if found else None
    gate = RolloutGate(observer.cluster, observer, Rollout(), lambda: now)
    config = {"spec": {"serveConfigV2": serve_config_text(resource.spec)}}
    labels = naming.labels(resource.name)
    fillers = await observer.cluster.list(DAEMON_SET, resource.namespace, labels)
    return await gate.held_for_weights(
        resource, config, live, [each for each in fillers if fills_cache(each)]
    )


def _desired_image(recorded: Status) -> str:
    """The desired runtime image, from the stored status. While a change waits, `image` there is the running one."""
    images = recorded.preload.images if recorded.preload else ()
    return images[0].image if images else recorded.image or ""


async def _events(cluster: Cluster, live: Json, snapshot: Snapshot) -> list[Json]:
    """Events about the resource, its RayService and clusters, and their pods."""
    metadata = live["metadata"]
    names = {metadata["name"], *snapshot.clusters, *(pod.name for pod in snapshot.pods)}
    try:
        found = await cluster.list(CORE_EVENT, metadata["namespace"])
    except Refused:
        return []
    return [event for event in found if event["involvedObject"].get("name") in names]


def lines(explanation: Explanation, width: int | None) -> Iterator[str]:
    """The explanation as text.

    Args:
        explanation: what to show.
        width: columns of the terminal; None if the output is not a terminal: then lines are not wrapped.
    """
    mark, colour = _MARKS[explanation.good]
    yield typer.style(f"{mark} {explanation.headline}", fg=colour, bold=True)
    for finding in explanation.findings:
        elapsed = f" (for {finding.elapsed})" if finding.elapsed else ""
        yield ""
        yield typer.style(f"{finding.title}{elapsed}", bold=True)
        yield from _wrapped(finding.message, width, "  ")
        if finding.advice:
            yield from _wrapped(f"→ {finding.advice}", width, "  ", "    ")
    for start in explanation.starts:
        yield ""
        yield typer.style(start.title, bold=True)
        yield from chart(start)
    yield from _table("Conditions", ("CONDITION", "STATUS", "REASON", "FOR"), explanation.conditions, width)
    yield from _table("Pods", ("POD", "GROUP", "STATE"), explanation.pods, width)
    yield from _table("Latest warnings", ("AGO", "REASON", "OBJECT", "MESSAGE"), explanation.events, width)


def _table(title: str, header: tuple[str, ...], rows: Sequence[Row], width: int | None) -> Iterator[str]:
    """A table with padded columns. The text of the last column is wrapped within its column."""
    if not rows:
        return
    cells = [header, *(row.cells for row in rows)]
    widths = [max(len(each[column]) for each in cells) for column in range(len(header) - 1)]
    yield ""
    yield typer.style(title, bold=True)
    yield _line(header, widths)
    for row in rows:
        first = _line(row.cells, widths)
        text = list(_wrapped(first, width, "", " " * (2 + sum(each + 3 for each in widths))))
        mark, colour = _MARKS[row.good]
        yield typer.style(mark, fg=colour) + text[0][1:]
        yield from text[1:]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [f"{cell:<{width}}" for cell, width in zip(cells[:-1], widths, strict=True)]
    return "   ".join([f"  {padded[0]}", *padded[1:], cells[-1]])


def _wrapped(text: str, width: int | None, indent: str, further: str | None = None) -> list[str]:
    if width is None:
        return [indent + text]
    further = indent if further is None else further
    room = max(width, len(further) + 20)
    return textwrap.wrap(
        text,
        room,
        initial_indent=indent,
        subsequent_indent=further,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [indent]
