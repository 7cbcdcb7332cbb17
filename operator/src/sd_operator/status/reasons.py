# SPDX-License-Identifier: Apache-2.0
"""The meaning of every condition and reason, and the advice: for `sdservice why` and docs/reasons.md (pure)."""

from typing import NamedTuple

from sd_operator.api.status import ConditionType, Reason


class Meaning(NamedTuple):
    """The explanation of a reason; `advice` is empty if there is nothing to do."""

    meaning: str
    advice: str = ""


CONDITIONS = {
    ConditionType.READY: "A request would be answered now.",
    ConditionType.ACCEPTED: "The spec is valid, and KubeRay accepts the RayService that the operator made from it.",
    ConditionType.IMAGES_PRELOADED: "The images are on every node that is ready and may get a worker.",
    ConditionType.MODEL_AVAILABLE: "The weights could be fetched and loaded. The status is Unknown until a replica reports it.",
    ConditionType.CONFIG_APPLIED: "Ray runs the Serve configuration of this spec, as read back from Ray.",
    ConditionType.SCHEDULABLE: "Every pod that Ray requests may be created and finds a node.",
    ConditionType.UPGRADING: "A second RayCluster is starting, to replace the one that serves.",
    ConditionType.SUSPENDED: "All pods have been removed.",
}
"""When each condition is True."""

REASONS = {
    Reason.ACCEPTED: Meaning("The spec is valid."),
    Reason.APPLICATION_DEPLOYING: Meaning("Ray is building or rolling out the application."),
    Reason.APPLICATION_FAILED: Meaning(
        "Ray could not deploy the application.",
        "Read the error in the message. Ray deploys a change of the spec or of the image immediately.",
    ),
    Reason.APPLICATION_RUNNING: Meaning("Ray runs the configuration of this spec."),
    Reason.APPLICATION_UNHEALTHY: Meaning(
        "Replicas fail their health check, and no replica is known to answer.",
        "Ray replaces them automatically. If this state lasts, read the logs of the worker pods.",
    ),
    Reason.CONFIG_DIFFERS: Meaning(
        "Ray runs another value than the spec has. The message names the key and both values.",
        "If this state lasts longer than a minute, check whether another client changes Ray's configuration. Check also that"
        " image and operator have the same release.",
    ),
    Reason.CONFIG_PENDING: Meaning("KubeRay or Ray has not received the configuration of this spec yet."),
    Reason.CONTAINER_REFUSED: Meaning(
        "The kubelet cannot create a container.",
        "Create the Secret or mount that the message names, or remove it from the spec.",
    ),
    Reason.CRASH_LOOPING: Meaning(
        "Pods of this service end soon after they start.",
        "If the message has exit code 137 with OOMKilled, raise the memory of the group or the head. Otherwise read the logs"
        " of the pod.",
    ),
    Reason.CHANGES_IGNORED: Meaning(
        "Upgrade strategy InPlaceOnly does not apply changes that need new pods; the message names the fields. Or KubeRay has"
        " rewritten the RayCluster and left its pods unchanged.",
        "To apply the whole spec, set `upgrade.strategy: NewCluster`, or delete the pods that the message counts. Otherwise"
        " revert those fields.",
    ),
    Reason.CREATING: Meaning("The RayService does not exist yet."),
    Reason.DEADLINE_EXCEEDED: Meaning(
        "A new image did not reach all matching nodes within imagePreload.timeoutSeconds. The change stays on hold.",
        "Fix the problem that the message names; the change then continues automatically. Or revert the change, or set"
        " `imagePreload.mode: Opportunistic` to continue without the image.",
    ),
    Reason.DEGRADED: Meaning(
        "Requests are answered, but by fewer replicas than desired, by a former version, or without a head.",
        "Read the error in the message. The replicas that answer continue until a change succeeds. Without a head they continue"
        " for a minute at most; with `head.faultTolerance` they continue until the next head is ready.",
    ),
    Reason.DELAYS_TOO_SHORT: Meaning(
        "Ray runs the configuration of this spec. But a worker takes longer to start than autoscaling keeps an idle one, or"
        " than a request waits.",
        "Raise the fields that the message names, or make the start shorter. `status.coldStart` shows the duration of each"
        " phase.",
    ),
    Reason.DISABLED: Meaning(
        "Nothing is preloaded: imagePreload.mode is Disabled, or no worker group requests GPUs or selects nodes."
    ),
    Reason.HEAD_NOT_READY: Meaning(
        "The head pod is gone or not ready.",
        "KubeRay creates a new head pod. If no head becomes ready, read the Events of the head pod.",
    ),
    Reason.IMAGES_PRESENT: Meaning("The image is on all matching nodes."),
    Reason.IMAGES_UNSEEN: Meaning(
        "The operator cannot see whether nodes have the images.",
        "Allow the operator to get and list nodes. If kubelets list too few images, raise their nodeStatusMaxImages and"
        " set SDSERVICE_NODE_STATUS_MAX_IMAGES to the same value.",
    ),
    Reason.IMAGE_LOST: Meaning(
        "A node lost an image: a person or a tool deleted it, or the kubelet did because the disk was full.",
        "Free space on the node's disk. Then delete the preload pod of that node; the next preload pod pulls the image again.",
    ),
    Reason.IMAGE_NOT_PRELOADED: Meaning(
        "Mode External: a node did not have an image before its first pod.",
        "Build the volume or disk again with this image, and use it in the node pool or node class.",
    ),
    Reason.IMAGE_PULL_FAILED: Meaning(
        "The image cannot be pulled. The message contains the registry's answer.",
        "Correct spec.image.repository, tag or digest. For a private registry set spec.image.pullSecrets.",
    ),
    Reason.INVALID: Meaning("The spec breaks a rule.", "Change the field that the message names."),
    Reason.KUBERAY_MISSING: Meaning(
        "The cluster has no kind RayService.",
        "Install KubeRay 1.7 or newer. The service then continues automatically.",
    ),
    Reason.KUBERAY_REFUSED: Meaning(
        "KubeRay refuses the RayService. A cluster that served before continues to serve.",
        "Change the field that the message names. If no field of your spec causes it, report it as a bug of the operator.",
    ),
    Reason.MODEL_FORBIDDEN: Meaning(
        "The source of the weights denies access.",
        "Accept the model's licence with the account of your token. Set spec.model.tokenSecretRef to the Secret with this"
        " token.",
    ),
    Reason.LOADED_WITH_WARNINGS: Meaning(
        "A replica has loaded the model, and a library logged a warning.",
        "Read the warning in the message. Generated pictures may differ from those of the model's authors.",
    ),
    Reason.LORA_REFUSED: Meaning(
        "The service runs without a LoRA of its spec: the file is missing, refused or does not fit the model.",
        "Repair the file or the URI that the message names. Requests for this LoRA are answered with 400 until then.",
    ),
    Reason.MODEL_INVALID: Meaning(
        "The runtime cannot serve this model: the spec has an option that the model does not support, or a file is damaged.",
        "Change the field or replace the file that the message names.",
    ),
    Reason.MODEL_LOADED: Meaning("A replica has loaded the model."),
    Reason.MODEL_LOADING: Meaning("No replica has loaded the model yet."),
    Reason.MODEL_NOT_FOUND: Meaning(
        "There is no such model, revision, folder or file.",
        "Correct spec.model.uri and revision. A private repository needs spec.model.tokenSecretRef.",
    ),
    Reason.MODEL_NOT_LOADED: Meaning(
        "The service has zero replicas, so no replica has loaded the model. The next request loads it."
    ),
    Reason.MODEL_UNAVAILABLE: Meaning(
        "The weights could not be downloaded or loaded.",
        "Read the error in the message. Check the network, proxy and egress rules, the disk space, and the model folder.",
    ),
    Reason.KUBERAY_TOO_OLD: Meaning(
        "KubeRay or its CustomResourceDefinitions are too old for the operator.",
        "Install KubeRay 1.7 or newer with its CustomResourceDefinitions. Helm does not upgrade CustomResourceDefinitions.",
    ),
    Reason.NAME_CONFLICT: Meaning(
        "The operator needs a name that another object already has. That object is not part of this service.",
        "Delete or rename that object, or give this service another name.",
    ),
    Reason.NEW_CLUSTER_STARTING: Meaning(
        "A second RayCluster is starting. The first cluster serves until the second one is ready."
    ),
    Reason.NO_ENDPOINTS: Meaning(
        "No pod accepts requests.",
        "A worker becomes ready once it runs a replica. If this state lasts, read the Events of the worker pods.",
    ),
    Reason.NO_MATCHING_NODES: Meaning(
        "No node matches the worker groups now, so nothing is preloaded. The message names the labels of matching nodes."
    ),
    Reason.NO_REPLICAS: Meaning(
        "No replica accepts requests.",
        "Wait: a replica is starting, and a large model takes minutes to load.",
    ),
    Reason.PODS_REFUSED: Meaning(
        "The API server refuses the pods.",
        "Change the spec or the policy that the message names: a LimitRange, Pod Security, or an admission webhook.",
    ),
    Reason.PULLING: Meaning("The image is being pulled."),
    Reason.QUOTA_EXCEEDED: Meaning(
        "The pods exceed the quota of the namespace.",
        "Raise the ResourceQuota that the message names, or lower replicas.min or the resources of the group.",
    ),
    Reason.RAY_VERSION_DIFFERS: Meaning(
        "The image contains another version of Ray than spec.image.rayVersion. KubeRay derives its commands from that field.",
        "Set `image.rayVersion` to the version of the image, which the message names; this starts a new cluster. Or use an"
        " image with the Ray version of the spec.",
    ),
    Reason.REPLACING_IN_PLACE: Meaning(
        "No node became available for an additional worker, so each replica stops before its successor starts.",
        "Add a node, or set `upgrade.surgeWorkers: 0` to replace replicas in place without waiting for a node.",
    ),
    Reason.REFUSED: Meaning(
        "The API server refuses a request of the operator.",
        "Grant the operator the permission that the message names, raise the quota, or repair the webhook. The operator"
        " retries automatically. If an object is too large, make the spec shorter.",
    ),
    Reason.RUNNING: Meaning("The service is not suspended."),
    Reason.SCALED_TO_ZERO: Meaning("No replica runs. The next request waits until a replica runs."),
    Reason.SCHEDULED: Meaning("No pod waits for a node."),
    Reason.SERVING: Meaning("Requests are answered."),
    Reason.STARTING: Meaning("The first cluster is starting."),
    Reason.SUSPENDED: Meaning(
        "The service is suspended: it has no pods and answers no requests.",
        "Set spec.suspend to false to start the service again.",
    ),
    Reason.SUSPENDING: Meaning("KubeRay is removing the pods."),
    Reason.UNSCHEDULABLE: Meaning(
        "No node fits a pod. The message contains the scheduler's reason.",
        "Add a node that fits, or change resources, nodeSelector, tolerations or affinity of the group or the head.",
    ),
    Reason.SHORT_OF_GPUS: Meaning(
        "No node has enough free GPUs for workers of the second cluster. The first cluster continues to serve.",
        "Add nodes, free GPUs, or revert the change. For the next change you can choose `upgrade.strategy: InPlaceOnly`.",
    ),
    Reason.UPGRADE_FAILED: Meaning(
        "The second cluster does not come up. The first cluster continues to serve.",
        "Read the error in the message. Fix the spec, or revert the change.",
    ),
    Reason.UP_TO_DATE: Meaning("No second cluster is starting."),
    Reason.WAITING_FOR_DELETION: Meaning(
        "The operator needs a name of an object that is still being removed. An example is the RayService of a service that"
        " was deleted and applied again.",
        "The service starts automatically once the object is gone. If that takes longer than minutes, check that KubeRay runs."
        " Its finalizer stays on the RayService until KubeRay has removed the clusters.",
    ),
    Reason.WAITING_FOR_IMAGES: Meaning(
        "With imagePreload.mode Required the whole change is on hold until its image is on the nodes.",
        "The change continues automatically. ImagesPreloaded names the missing nodes and the deadline.",
    ),
    Reason.WAITING_FOR_OTHERS: Meaning(
        "A new version or setting of the operator changes the pods. The operator upgrades only a few services at a time.",
        "The change continues automatically. SDSERVICE_ROLLOUT_AT_ONCE sets how many services change at a time; those"
        " with Upgrading=True change now.",
    ),
    Reason.WAITING_FOR_WEIGHTS: Meaning(
        "A change of the model is on hold until its weights are fetched. The running replicas stay unchanged.",
        "If this state lasts, read the log of the weights pods of the service, or revert the change.",
    ),
    Reason.WAKING: Meaning(
        "A request woke the service from zero replicas. The request waits until a replica runs."
    ),
}


def page() -> str:
    """The text of docs/reasons.md: both tables as Markdown."""
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
        *(f"| `{reason.value}` | {each.meaning} | {each.advice} |" for reason, each in REASONS.items()),
    ]
    return "\n".join(lines) + "\n"
