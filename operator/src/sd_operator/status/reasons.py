# SPDX-License-Identifier: Apache-2.0
"""What every condition and every reason means and what to do about it: for `sdservice why` and docs/reasons.md (pure)."""

from typing import NamedTuple

from sd_operator.api.status import ConditionType, Reason


class Meaning(NamedTuple):
    """A reason in words; `advice` is empty where there is nothing to do."""

    meaning: str
    advice: str = ""


CONDITIONS = {
    ConditionType.READY: "A request would be answered now.",
    ConditionType.ACCEPTED: "The spec is valid, and KubeRay takes what it became.",
    ConditionType.IMAGES_PRELOADED: "The images are on every node that is ready and may get a worker.",
    ConditionType.MODEL_AVAILABLE: "The weights could be fetched and loaded. Unknown until a replica tells.",
    ConditionType.CONFIG_APPLIED: "Ray runs the Serve configuration of this spec, as read back from Ray.",
    ConditionType.SCHEDULABLE: "Every pod that Ray asks for finds a node and may be created.",
    ConditionType.UPGRADING: "A second cluster is on its way.",
    ConditionType.SUSPENDED: "All pods are given back.",
}
"""When each condition is True."""

REASONS = {
    Reason.ACCEPTED: Meaning("The spec is valid."),
    Reason.APPLICATION_DEPLOYING: Meaning("Ray is building or rolling out the application."),
    Reason.APPLICATION_FAILED: Meaning(
        "Ray could not deploy the application.",
        "Read the error in the message; a change of the spec or of the image is deployed at once.",
    ),
    Reason.APPLICATION_RUNNING: Meaning("Ray runs the configuration of this spec."),
    Reason.APPLICATION_UNHEALTHY: Meaning(
        "Replicas fail their health check and none is known to answer.",
        "Ray replaces them by itself; if it lasts, read the logs of the worker pods.",
    ),
    Reason.CONFIG_DIFFERS: Meaning(
        "Ray runs another value than the spec asks for; the message names the key and both values.",
        "If it lasts longer than a minute, look whether someone else PUTs to Ray, and whether image and operator are of"
        " one release.",
    ),
    Reason.CONFIG_PENDING: Meaning("The configuration is on its way through KubeRay to Ray."),
    Reason.CONTAINER_REFUSED: Meaning(
        "The kubelet cannot create a container.",
        "Create the Secret or mount that the message names, or take it out of the spec.",
    ),
    Reason.CRASH_LOOPING: Meaning(
        "Pods of this service end soon after they start.",
        "Exit code 137 with OOMKilled: raise the memory of the group or the head. Else read the logs of the pod.",
    ),
    Reason.CHANGES_IGNORED: Meaning(
        "Upgrade strategy InPlaceOnly leaves out what needs other pods; the message names the fields. Or KubeRay has"
        " rewritten the RayCluster and left its pods as they were.",
        "To have all of the spec, set `upgrade.strategy: NewCluster`, or delete the pods that the message counts; or take"
        " those fields back.",
    ),
    Reason.CREATING: Meaning("The RayService does not exist yet."),
    Reason.DEADLINE_EXCEEDED: Meaning(
        "A new image is not on all matching nodes within imagePreload.timeoutSeconds; the change is held on.",
        "Mend what the message names and it goes on by itself; or take the change back, or set"
        " `imagePreload.mode: Opportunistic` to go on without.",
    ),
    Reason.DEGRADED: Meaning(
        "Requests are answered, by fewer replicas or by a former version than asked for, or without a head.",
        "Read the error in the message; the replicas that answer go on until a change succeeds. Without a head that is for a"
        " minute at most, or with `head.faultTolerance` until there is another one.",
    ),
    Reason.DELAYS_TOO_SHORT: Meaning(
        "Ray runs the configuration of this spec, but a worker takes longer to start than autoscaling keeps one, or than a"
        " request waits for one.",
        "Raise the fields that the message names, or make the start shorter: `status.coldStart` says where its time goes.",
    ),
    Reason.DISABLED: Meaning(
        "Nothing is preloaded: imagePreload.mode is Disabled, or no worker group asks for GPUs or selects nodes."
    ),
    Reason.HEAD_NOT_READY: Meaning(
        "The head pod is gone or not ready.",
        "KubeRay makes a new one; if it stays away, look at the head pod's events.",
    ),
    Reason.IMAGES_PRESENT: Meaning("The image is on all matching nodes."),
    Reason.IMAGES_UNSEEN: Meaning(
        "Whether nodes hold the images cannot be seen.",
        "Let the operator get and list nodes; where kubelets list too few images, raise their nodeStatusMaxImages and"
        " set SDSERVICE_NODE_STATUS_MAX_IMAGES to the same.",
    ),
    Reason.IMAGE_LOST: Meaning(
        "A node lost an image that was there: a person, a tool, or an eviction for want of disk space.",
        "Make room on the node's disk; then delete the preload pod of that node, and the next one pulls again.",
    ),
    Reason.IMAGE_NOT_PRELOADED: Meaning(
        "Mode External: a node did not have an image before its first pod.",
        "Build the volume or disk anew with this image, and have node pool or node class use it.",
    ),
    Reason.IMAGE_PULL_FAILED: Meaning(
        "The image cannot be pulled; the message has the registry's words.",
        "Mend spec.image.repository, tag or digest; for a private registry set spec.image.pullSecrets.",
    ),
    Reason.INVALID: Meaning("The spec breaks a rule.", "Change the field that the message names."),
    Reason.KUBERAY_MISSING: Meaning(
        "The cluster has no kind RayService.", "Install KubeRay 1.7 or newer; this goes on by itself then."
    ),
    Reason.KUBERAY_REFUSED: Meaning(
        "KubeRay refuses the RayService; what served before serves on.",
        "Change what the message names; if no field of yours leads to it, it is an error of the operator.",
    ),
    Reason.MODEL_FORBIDDEN: Meaning(
        "The source of the weights does not let us in.",
        "Accept the model's licence with the account of the token, and set spec.model.tokenSecretRef to it.",
    ),
    Reason.LOADED_WITH_WARNINGS: Meaning(
        "A replica has loaded the model, and a library warned of something that it found.",
        "Read the warning in the message; images may differ from what the model's authors show.",
    ),
    Reason.LORA_REFUSED: Meaning(
        "The service runs without a LoRA of its spec: the file is missing, refused or does not fit the model.",
        "Repair the file or the URI that the message names. Requests for this LoRA are answered 400 until then.",
    ),
    Reason.MODEL_INVALID: Meaning(
        "The runtime cannot serve this model: the spec asks for what it cannot do, or a file is damaged.",
        "Change the field or replace the file that the message names.",
    ),
    Reason.MODEL_LOADED: Meaning("A replica has loaded the model."),
    Reason.MODEL_LOADING: Meaning("No replica has told of the model yet."),
    Reason.MODEL_NOT_FOUND: Meaning(
        "There is no such model, revision, folder or file.",
        "Mend spec.model.uri and revision; a private repository needs spec.model.tokenSecretRef.",
    ),
    Reason.MODEL_NOT_LOADED: Meaning("At zero replicas nobody holds the model; the next request loads it."),
    Reason.MODEL_UNAVAILABLE: Meaning(
        "The weights could not be downloaded or loaded.",
        "Look at the error in the message: network, proxy and egress rules, disk space, or a damaged folder.",
    ),
    Reason.KUBERAY_TOO_OLD: Meaning(
        "KubeRay or its CustomResourceDefinitions lack what the operator relies on.",
        "Install KubeRay 1.7 or newer with its CustomResourceDefinitions; Helm does not upgrade those.",
    ),
    Reason.NAME_CONFLICT: Meaning(
        "An object of a name that is needed is not part of this service.",
        "Delete or rename that object, or give this service another name.",
    ),
    Reason.NEW_CLUSTER_STARTING: Meaning(
        "A second RayCluster starts; the first one serves until it is ready."
    ),
    Reason.NO_ENDPOINTS: Meaning(
        "No pod takes requests.",
        "Workers get ready once they hold a replica; if it lasts, look at their events.",
    ),
    Reason.NO_MATCHING_NODES: Meaning(
        "No node matches the worker groups now, so nothing is preloaded; the message says which nodes are looked for."
    ),
    Reason.NO_REPLICAS: Meaning(
        "No replica takes requests.", "A replica is starting; loading a large model takes minutes."
    ),
    Reason.PODS_REFUSED: Meaning(
        "The API server refuses the pods.",
        "The message names the policy: a LimitRange, Pod Security, an admission webhook of the namespace.",
    ),
    Reason.PULLING: Meaning("The image is being pulled."),
    Reason.QUOTA_EXCEEDED: Meaning(
        "The namespace's quota has no room for the pods.",
        "Raise the ResourceQuota that the message names, or lower replicas.min or the resources of the group.",
    ),
    Reason.RAY_VERSION_DIFFERS: Meaning(
        "The image contains another version of Ray than spec.image.rayVersion names, from which KubeRay derives its commands.",
        "Set `image.rayVersion` to the version that the message names, which starts a new cluster; or use an image with"
        " the other one.",
    ),
    Reason.REPLACING_IN_PLACE: Meaning(
        "No node came for an additional worker, so each replica stops before its successor starts.",
        "Add a node, or set `upgrade.surgeWorkers: 0` to replace replicas where they are without waiting for a node.",
    ),
    Reason.REFUSED: Meaning(
        "The API server refuses what the operator writes or reads.",
        "Give the operator the right that the message names, make room in the quota, or bring the webhook back; it is tried"
        " again by itself. Where an object is too large, make the spec shorter.",
    ),
    Reason.RUNNING: Meaning("The service is meant to run."),
    Reason.SCALED_TO_ZERO: Meaning("No replica runs; the next request is held until one does."),
    Reason.SCHEDULED: Meaning("No pod waits for a node."),
    Reason.SERVING: Meaning("Requests are answered."),
    Reason.STARTING: Meaning("The first cluster is starting."),
    Reason.SUSPENDED: Meaning(
        "Suspended: no pods, no requests.", "Set spec.suspend to false to start again."
    ),
    Reason.SUSPENDING: Meaning("Pods are being given back."),
    Reason.UNSCHEDULABLE: Meaning(
        "A pod finds no node; the message has the scheduler's words.",
        "Add a node that fits, or change resources, nodeSelector, tolerations or affinity of the group or the head.",
    ),
    Reason.SHORT_OF_GPUS: Meaning(
        "Workers of the second cluster find no node with enough free GPUs; the first cluster continues to serve.",
        "Add nodes or free GPUs; or take the change back; or choose `upgrade.strategy: InPlaceOnly` for the next one.",
    ),
    Reason.UPGRADE_FAILED: Meaning(
        "The second cluster does not come up; the first one serves on.",
        "Read the error in the message; mend the spec, or take the change back.",
    ),
    Reason.UP_TO_DATE: Meaning("No second cluster is starting."),
    Reason.WAITING_FOR_DELETION: Meaning(
        "An object of a name that is needed is still being removed, such as the RayService of a service that was deleted and"
        " applied again.",
        "It goes on by itself once the object is gone. If that takes longer than minutes, see whether KubeRay runs: its"
        " finalizer stays on the RayService until KubeRay has removed the clusters.",
    ),
    Reason.WAITING_FOR_IMAGES: Meaning(
        "With imagePreload.mode Required the change waits as a whole until its image is on the nodes.",
        "It goes on by itself; ImagesPreloaded says what is missing, and when it is late.",
    ),
    Reason.WAITING_FOR_OTHERS: Meaning(
        "Another version or setting of the operator gives the pods something else; a few services at a time get it.",
        "It goes on by itself; SDSERVICE_ROLLOUT_AT_ONCE says how many. Look at the services whose Upgrading is True.",
    ),
    Reason.WAITING_FOR_WEIGHTS: Meaning(
        "A change of the model waits until its weights are fetched; what runs goes on.",
        "If it lasts, read the log of the weights pods of the service; or take the change back.",
    ),
    Reason.WAKING: Meaning("A request woke the service from zero; it is held until a replica runs."),
}


def page() -> str:
    """docs/reasons.md: both tables as Markdown."""
    lines = [
        "<!-- Made by `make generate` from operator/src/sd_operator/status/reasons.py. -->",
        "# Every condition and every reason",
        "",
        "| condition | True means |",
        "|---|---|",
        *(f"| `{kind.value}` | {meaning} |" for kind, meaning in CONDITIONS.items()),
        "",
        "| reason | means | what to do |",
        "|---|---|---|",
        *(f"| `{reason.value}` | {told.meaning} | {told.advice} |" for reason, told in REASONS.items()),
    ]
    return "\n".join(lines) + "\n"
