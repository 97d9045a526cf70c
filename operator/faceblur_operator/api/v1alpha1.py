"""FaceBlurCluster as users write it: the source from which `crdgen` makes the CustomResourceDefinition.

Every field's description ends up in `kubectl explain`, every bound, default and rule is enforced by the API server, so
what the operator reads here has been validated already. Rules that span fields are CEL, next to the model they are
about; their messages say what to do. Fields that Kubernetes itself defines are passed through unread.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

GROUP = "faceblur.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CLUSTER_KIND = "FaceBlurCluster"
CLUSTER_PLURAL = "faceblurclusters"

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_DNS_NAME = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """CEL rules of a model, as pairs of the rule and what a person is told when it does not hold."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


_PASSTHROUGH = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
Passthrough = Annotated[dict[str, Any], WithJsonSchema(_PASSTHROUGH)]
IntOrPercent = Annotated[
    int | str,
    WithJsonSchema({"x-kubernetes-int-or-string": True, "minimum": 0, "pattern": r"^(100|[0-9]{1,2})%$"}),
]
Quantity = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti|e[0-9]+)?$",
        }
    ),
]
SecretName = Annotated[str, Field(min_length=1, max_length=253, pattern=_DNS_NAME)]
SecretKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=_DNS_NAME)]
Text = Annotated[str, Field(max_length=4096)]
# Workers are given the list with commas between, and drop blanks around a name.
Identity = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^,\s]([^,]*[^,\s])?$")]
TextMap = Annotated[dict[str, Text], Field(max_length=256)]
QuantityMap = Annotated[dict[str, Quantity], Field(max_length=32)]
UNIQUE: dict[str, Any] = {"x-kubernetes-list-type": "set"}
UNIQUE_NAMES: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class Model(BaseModel):
    """A part of a resource: camelCase outside, immutable, deaf to fields of later versions."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class PullPolicy(StrEnum):
    """When a node fetches the image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Profile(StrEnum):
    """How faces are searched for."""

    FAST = "fast"
    BALANCED = "balanced"
    THOROUGH = "thorough"


class Method(StrEnum):
    """How faces are filled."""

    BLUR = "blur"
    MOSAIC = "mosaic"
    SOLID = "solid"


class Shape(StrEnum):
    """The outline of what is obscured."""

    BOX = "box"
    ELLIPSE = "ellipse"
    ROUNDED = "rounded"


class Keep(StrEnum):
    """Metadata that can be copied from the source to the result."""

    ICC = "icc"
    CAPTURE_TIME = "capture-time"
    GPS = "gps"
    AUTHOR = "author"
    COPYRIGHT = "copyright"


class AutoscalingMode(StrEnum):
    """Who decides how many workers there are."""

    CPU = "CPU"
    KEDA = "KEDA"
    FIXED = "Fixed"


class ServiceType(StrEnum):
    """How callers outside the cluster's pods reach the workers."""

    HEADLESS = "Headless"
    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class LogLevel(StrEnum):
    """The least important lines that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Detection(Model):
    """How faces are searched for, where the caller does not say."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.minFace) || !has(self.maxFace) || self.minFace <= self.maxFace",
                "minFace must not be above maxFace",
            ),
            ("!(self.profile in self.alsoServe)", "alsoServe names the profile a second time; list only the others"),
        )
    )

    profile: Profile = Field(
        Profile.BALANCED,
        description="Default profile: fast for close-ups, balanced for photographs, thorough for crowds and evidence.",
    )
    also_serve: tuple[Profile, ...] = Field(
        (),
        max_length=2,
        description="Profiles that callers may ask for besides the default. Each costs memory.",
        json_schema_extra=UNIQUE,
    )
    min_score: float | None = Field(
        None, ge=0, le=1, description="Replaces the profile's measured thresholds. Higher misses more faces."
    )
    min_face: float | None = Field(
        None, ge=0, le=100000, description="Faces whose longer side is shorter than this many pixels are left alone."
    )
    max_face: float | None = Field(
        None, ge=1, le=100000, description="Faces whose longer side is longer than this many pixels are left alone."
    )


class Margin(Model):
    """How far an obscured region reaches past the detected face. Unset parts follow the profile."""

    sides: float | None = Field(None, ge=0, le=2, description="Left and right, each as a share of the face's width.")
    top: float | None = Field(None, ge=0, le=2, description="Above, as a share of the face's height.")
    bottom: float | None = Field(None, ge=0, le=2, description="Below, as a share of the face's height.")
    pixels: float | None = Field(None, ge=0, le=1000, description="Added on all sides, in pixels.")


class Redaction(Model):
    """How faces are obscured, where the caller does not say."""

    method: Method = Field(Method.BLUR, description="blur, mosaic or solid; all carry at most `cells` across a face.")
    cells: int = Field(8, ge=1, le=8, description="Strength: cells across an obscured face. Fewer hide more.")
    shape: Shape | None = Field(None, description="Outline of obscured regions. Unset: the profile's.")
    margin: Margin | None = Field(None, description="Growth of the detected boxes. Unset: the profile's.")
    feather: float | None = Field(
        None,
        ge=0,
        le=0.5,
        description="Width of the blended rim outside the region, as a share of the region's longer side.",
    )
    verify: bool = Field(
        False, description="Detect again on every result and refuse it if a face is found outside the regions."
    )


class Metadata(Model):
    """What is copied beside the pixels, where the caller does not say."""

    keep: tuple[Keep, ...] = Field(
        (Keep.ICC,),
        max_length=5,
        description="Metadata that is copied to the result; everything else is dropped.",
        json_schema_extra=UNIQUE,
    )


class ImageLimits(Model):
    """What is refused unread. Higher limits need more memory."""

    max_bytes: int = Field(67108864, ge=1024, le=1073741824, description="Longest picture, in bytes.")
    max_width: int = Field(20000, ge=1, le=65535, description="Widest picture, in pixels.")
    max_height: int = Field(20000, ge=1, le=65535, description="Highest picture, in pixels.")
    max_pixels: int = Field(100000000, ge=1, le=4000000000, description="Largest picture, width times height.")
    max_scans: int = Field(100, ge=1, le=10000, description="Most scans of a progressive JPEG.")
    max_waiting: int = Field(64, ge=0, le=10000, description="Pictures that may wait in one worker.")
    max_message_bytes: int = Field(
        16777216, ge=65536, le=1073741824, description="Longest message either way; longer pictures come in chunks."
    )
    max_bytes_in_flight: int = Field(
        268435456, ge=1024, le=68719476736, description="Length of all pictures inside one worker, in bytes."
    )


class Resources(Model):
    """CPU and memory of one container."""

    requests: QuantityMap = Field(
        {"cpu": "1", "memory": "768Mi"}, description="What the scheduler sets aside for a worker."
    )
    limits: QuantityMap = Field(
        {"memory": "1Gi"},
        description="What a worker may use at most. A CPU limit throttles answers; whole cores work best.",
    )


class Workers(Model):
    """One worker pod."""

    resources: Resources = Field(Resources(), description="CPU and memory of a worker.")
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Pictures worked on at the same time. 0: the CPU limit, or the CPU request where there is no "
        "limit, rounded up to whole cores.",
    )
    max_connection_age_seconds: int = Field(
        30,
        ge=1,
        le=86400,
        description="Then a connection is closed once its calls are done, so that callers find new workers.",
    )
    settle_seconds: int = Field(
        5, ge=0, le=600, description="How long a worker that is told to go still takes calls while the word spreads."
    )
    grace_seconds: int = Field(
        60, ge=5, le=3600, description="How long a worker that is told to go has for what it accepted."
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="The least important lines that are logged.")
    trace_endpoint: str | None = Field(
        None, max_length=2048, pattern=r"^https?://", description="OTLP/gRPC endpoint for traces. Unset: no traces."
    )

    model_config = ConfigDict(
        json_schema_extra=rules(("self.settleSeconds < self.graceSeconds", "settleSeconds must be below graceSeconds"))
    )


class Keda(Model):
    """How KEDA scales the workers."""

    triggers: tuple[Passthrough, ...] = Field(
        (),
        max_length=20,
        description="Triggers of the ScaledObject. Empty: CPU at autoscaling.targetCPUPercent.",
    )
    polling_interval_seconds: int = Field(30, ge=1, le=86400, description="How often KEDA asks its triggers.")
    cooldown_seconds: int = Field(
        300, ge=0, le=86400, description="How long all triggers have to be idle before the workers go to zero."
    )


class Autoscaling(Model):
    """How many workers there are."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.minReplicas <= self.maxReplicas", "minReplicas must not be above maxReplicas"),
            (
                "self.minReplicas >= 1 || (self.mode == 'KEDA' && size(self.keda.triggers) > 0)",
                "minReplicas 0 needs mode KEDA with triggers of its own: CPU says nothing where no worker runs",
            ),
            (
                "self.mode == 'KEDA' || size(self.keda.triggers) == 0",
                "keda.triggers are only read with mode KEDA",
            ),
        )
    )

    mode: AutoscalingMode = Field(
        AutoscalingMode.CPU,
        description="CPU: a HorizontalPodAutoscaler. KEDA: a ScaledObject, where KEDA is installed; until then "
        "minReplicas workers. Fixed: spec.replicas workers.",
    )
    min_replicas: int = Field(2, ge=0, le=1000, description="Fewest workers.")
    max_replicas: int = Field(10, ge=1, le=1000, description="Most workers.")
    target_cpu_percent: int = Field(
        70,
        ge=1,
        le=1000,
        alias="targetCPUPercent",
        description="Average CPU use, as a share of the request, that the autoscaler aims for.",
    )
    behavior: Passthrough | None = Field(
        None, description="`behavior` of the HorizontalPodAutoscaler (autoscaling/v2), passed through."
    )
    keda: Keda = Field(Keda(), description="What only mode KEDA reads.")


class IssuerRef(Model):
    """A cert-manager issuer."""

    name: ObjectName = Field(description="Name of the issuer.")
    kind: str = Field("Issuer", max_length=63, description="Issuer, ClusterIssuer or an external issuer's kind.")
    group: str = Field("cert-manager.io", max_length=253, description="Group of the issuer's kind.")


class MutualTLS(Model):
    """Who may call: clients with a certificate from this authority."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!('none' in self.allowedIdentities)", "no identity can be called none: workers read it as an empty list")
        )
    )

    ca_secret_name: SecretName = Field(description="Secret whose `ca.crt` signs the certificates of clients.")
    allowed_identities: tuple[Identity, ...] = Field(
        (),
        max_length=256,
        description="Alternative or common names that may call. Empty: every certificate of the authority.",
        json_schema_extra=UNIQUE,
    )


class TLS(Model):
    """Encryption between callers and workers. Renewed certificates are read without a restart."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.secretName) != has(self.issuer)",
                "set either secretName, a Secret with tls.crt and tls.key, or issuer, a cert-manager issuer",
            ),
        )
    )

    secret_name: SecretName | None = Field(
        None, description="Secret of type kubernetes.io/tls with the workers' `tls.crt` and `tls.key`."
    )
    issuer: IssuerRef | None = Field(
        None, description="cert-manager issuer that the operator asks for the workers' certificate."
    )
    mutual: MutualTLS | None = Field(None, description="Asks callers for certificates. Unset: anybody may call.")


class Scheduling(Model):
    """Where workers run."""

    node_selector: TextMap | None = Field(None, description="Labels that a node has to have.")
    tolerations: tuple[Passthrough, ...] = Field(
        (), max_length=100, description="Taints that workers tolerate, as in a pod."
    )
    affinity: Passthrough | None = Field(None, description="Affinity as in a pod.")
    topology_spread_constraints: tuple[Passthrough, ...] | None = Field(
        None,
        max_length=16,
        description="As in a pod; a missing labelSelector is filled in. Unset: spread over zones and nodes where "
        "possible.",
    )
    priority_class_name: ObjectName | None = Field(None, description="Priority class of workers.")
    runtime_class_name: ObjectName | None = Field(None, description="Runtime class of workers.")


class DisruptionBudget(Model):
    """How many workers may be taken away at once by drains and evictions."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.minAvailable) || !has(self.maxUnavailable)",
                "set minAvailable or maxUnavailable, not both",
            ),
        )
    )

    enabled: bool = Field(True, description="Whether there is a PodDisruptionBudget.")
    min_available: IntOrPercent | None = Field(None, description="Workers that have to stay, a number or a percentage.")
    max_unavailable: IntOrPercent | None = Field(
        None, description="Workers that may be away, a number or a percentage. Unset with minAvailable unset: 1."
    )


class NetworkPolicy(Model):
    """Who reaches the workers, where the cluster's network enforces policies. Workers reach nobody."""

    enabled: bool = Field(True, description="Whether there is a NetworkPolicy for the workers.")
    callers: tuple[Passthrough, ...] = Field(
        (),
        max_length=100,
        description="NetworkPolicyPeers that may send pictures. Empty: all pods of the same namespace, and everybody "
        "with service.type NodePort or LoadBalancer.",
    )
    monitors: tuple[Passthrough, ...] = Field(
        (),
        max_length=100,
        description="NetworkPolicyPeers that may read metrics, besides the operator. Empty: all pods.",
    )
    egress: tuple[Passthrough, ...] = Field(
        (),
        max_length=100,
        description="Egress rules as in a NetworkPolicy, for a trace collector, say. Empty: nothing may leave.",
    )


class Service(Model):
    """How callers reach the workers.

    A headless Service is always there: gRPC clients that balance by themselves dial it.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.loadBalancerClass) || self.type == 'LoadBalancer'",
                "loadBalancerClass needs type LoadBalancer",
            ),
            (
                "!has(self.nodePort) || self.type in ['NodePort', 'LoadBalancer']",
                "nodePort needs type NodePort or LoadBalancer",
            ),
        )
    )

    type: ServiceType = Field(
        ServiceType.HEADLESS,
        description="Headless: for callers in the cluster that balance by themselves, as the SDK does. The others "
        "add a second Service of that type, whose connections stick to one worker until they are renewed.",
    )
    annotations: TextMap | None = Field(None, description="Annotations of the Services.")
    node_port: int | None = Field(None, ge=1, le=65535, description="Port on every node. Unset: one is chosen.")
    load_balancer_class: str | None = Field(None, max_length=253, description="Which load balancer serves it.")


class EmbeddedBroker(Model):
    """A single Valkey without persistence, for trying out: what it loses is handed out again, from the ledger."""

    memory: Quantity = Field("128Mi", description="Memory of its pod; three quarters of it hold tasks.")


class BrokerType(StrEnum):
    """What speaks at the other end of the broker's URL."""

    REDIS = "Redis"
    RABBITMQ = "RabbitMQ"


class RedisQueue(Model):
    """Where KEDA counts the pages that wait. It cannot take this from a URL."""

    address: str = Field(
        max_length=300, pattern=r"^[^\s/@:]+:[0-9]{1,5}$", description="HOST:PORT, the same as in the URL."
    )
    database: int = Field(0, ge=0, le=1000000, description="Number of the database, the same as in the URL.")
    tls: bool = Field(False, description="Whether connections are encrypted: the URL begins with rediss:// then.")
    username_key: SecretKey | None = Field(None, description="Key of the broker's Secret with the user's name.")
    password_key: SecretKey | None = Field(None, description="Key of the broker's Secret with the password.")


class Broker(Model):
    """Hands pages to batch workers. It needs no persistence."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.secretName) != has(self.embedded)",
                "set either secretName, a Secret with the broker's URL, or embedded: {}, a small Valkey for trying out",
            ),
            ("has(self.secretName) || self.type == 'Redis'", "the embedded broker is of type Redis"),
            (
                "!has(self.redis) || (has(self.secretName) && self.type == 'Redis')",
                "redis says where the Redis of a Secret is; it goes with secretName and type Redis",
            ),
            (
                "has(self.secretName) || !(has(self.caSecretName) || has(self.clientSecretName))",
                "caSecretName and clientSecretName are for the broker of secretName; the embedded one has no TLS",
            ),
        )
    )

    secret_name: SecretName | None = Field(
        None,
        description="Secret with the broker's URL: redis://, rediss://, valkey://, valkeys://, amqp:// or amqps://.",
    )
    key: SecretKey = Field("url", description="Key of that Secret that holds the URL.")
    ca_secret_name: SecretName | None = Field(
        None,
        description="Secret whose `ca.crt` signs the certificate of a broker at rediss://, valkeys:// or amqps://. "
        "Unset: the system's authorities do.",
    )
    client_secret_name: SecretName | None = Field(
        None, description="Secret of type kubernetes.io/tls that is shown to such a broker."
    )
    type: BrokerType = Field(
        BrokerType.REDIS, description="Redis, which Valkey counts as, or RabbitMQ. KEDA has to know."
    )
    redis: RedisQueue | None = Field(None, description="Where KEDA finds the Redis whose URL is in secretName.")
    embedded: EmbeddedBroker | None = Field(
        None, description="A single Valkey that the operator runs, without password and without persistence."
    )


class Addressing(StrEnum):
    """Where a request names the bucket."""

    PATH = "path"
    VIRTUAL = "virtual"


class Encryption(StrEnum):
    """How a store is asked to encrypt what it keeps."""

    S3 = "AES256"
    KMS = "aws:kms"
    KMS_TWICE = "aws:kms:dsse"


class StorageProfile(Model):
    """How an S3-compatible store is reached. Jobs name the profile, never credentials."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.endpoint) || self.allowHTTP || !self.endpoint.startsWith('http:')",
                "the endpoint is http://, which is not encrypted; set allowHTTP if that is meant",
            ),
            (
                "!self.anonymous || !has(self.credentialsSecretName)",
                "anonymous requests are not signed; leave credentialsSecretName away",
            ),
            (
                "!has(self.kmsKey) || (has(self.encryption) && self.encryption != 'AES256')",
                "kmsKey needs encryption aws:kms or aws:kms:dsse",
            ),
        )
    )

    name: str = Field(
        min_length=1,
        max_length=40,
        pattern=_DNS_LABEL,
        description="Name that jobs use. The profile called default is used where a job names none.",
    )
    endpoint: str | None = Field(
        None,
        max_length=2048,
        pattern=r"^https?://[^/?#@\s]+/?$",
        description="URL of the server, without bucket and path. Unset: Amazon S3 in region.",
    )
    region: str = Field("us-east-1", min_length=1, max_length=63, description="Region that requests are signed for.")
    addressing: Addressing = Field(
        Addressing.PATH, description="path: https://server/bucket/key; virtual: https://bucket.server/key."
    )
    allow_http: bool = Field(
        False, alias="allowHTTP", description="Permits an http:// endpoint: pictures travel in the clear."
    )
    ca_secret_name: SecretName | None = Field(
        None, description="Secret with authorities that are trusted for this server besides the system's."
    )
    ca_key: SecretKey = Field("ca.crt", description="Key of that Secret.")
    credentials_secret_name: SecretName | None = Field(
        None,
        description="Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if need be, AWS_SESSION_TOKEN; renewed "
        "ones are used without a restart. Unset: what the cloud provides to the pod.",
    )
    anonymous: bool = Field(False, description="Requests are not signed.")
    encryption: Encryption | None = Field(
        None, description="Asked for with everything that is written. Unset: the bucket's own."
    )
    kms_key: str | None = Field(None, max_length=2048, description="Key for aws:kms. Unset: the account's.")
    storage_class: str | None = Field(None, max_length=63, description="Of what is written. Unset: the bucket's.")


class BatchTLS(Model):
    """How batch workers and planners trust the workers, and how they prove who they are."""

    ca_secret_name: SecretName | None = Field(
        None,
        description="Secret whose `ca.crt` signs the workers' certificate. Unset: the workers' own Secret, in which "
        "cert-manager puts it.",
    )
    client_secret_name: SecretName | None = Field(
        None, description="Secret of type kubernetes.io/tls that is shown to the workers (tls.mutual)."
    )
    server_name: str | None = Field(
        None, max_length=253, description="Name in the workers' certificate. Unset: that of the headless Service."
    )


class BatchResources(Model):
    """CPU and memory of one batch worker."""

    requests: QuantityMap = Field(
        {"cpu": "100m", "memory": "256Mi"}, description="What the scheduler sets aside for a batch worker."
    )
    limits: QuantityMap = Field({"memory": "1Gi"}, description="What a batch worker may use at most.")


class BatchWorkers(Model):
    """One batch worker pod: it moves pictures between the store and the workers, and holds no engine."""

    resources: BatchResources = Field(BatchResources(), description="CPU and memory of a batch worker.")
    threads: int = Field(4, ge=1, le=256, description="Pages worked on at the same time.")
    concurrency: int = Field(
        8,
        ge=1,
        le=256,
        description="Pictures of a page in work at the same time. Memory holds threads times as many, twice.",
    )
    grace_seconds: int = Field(
        60, ge=5, le=3600, description="How long one that is told to go has for the pictures in its hands."
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="The least important lines that are logged.")


class BatchAutoscalingMode(StrEnum):
    """Who decides how many batch workers there are."""

    QUEUE = "Queue"
    CPU = "CPU"
    FIXED = "Fixed"


class BatchAutoscaling(Model):
    """How many batch workers there are."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.minReplicas <= self.maxReplicas", "minReplicas must not be above maxReplicas"),
            (
                "self.minReplicas >= 1 || self.mode != 'CPU'",
                "minReplicas 0 needs mode Queue: CPU says nothing where no batch worker runs",
            ),
        )
    )

    mode: BatchAutoscalingMode = Field(
        BatchAutoscalingMode.QUEUE,
        description="Queue: by the pages that wait, where KEDA is installed; by CPU until then. CPU: a "
        "HorizontalPodAutoscaler. Fixed: batch.replicas.",
    )
    min_replicas: int = Field(1, ge=0, le=1000, description="Fewest batch workers; 0 only takes effect with KEDA.")
    max_replicas: int = Field(10, ge=1, le=1000, description="Most batch workers.")
    pages_per_worker: int | None = Field(
        None, ge=1, le=10000, description="Pages in the queue for each batch worker. Unset: batch.workers.threads."
    )
    target_cpu_percent: int = Field(
        70, ge=1, le=1000, alias="targetCPUPercent", description="Average CPU use that is aimed for, in mode CPU."
    )
    behavior: Passthrough | None = Field(
        None, description="`behavior` of the HorizontalPodAutoscaler (autoscaling/v2), passed through."
    )
    polling_interval_seconds: int = Field(15, ge=1, le=86400, description="How often KEDA looks at the queue.")
    cooldown_seconds: int = Field(
        300, ge=0, le=86400, description="How long the queue has to be empty before the last batch worker goes."
    )


class Batch(Model):
    """Batches: pictures of a store are taken through the workers into a store, as FaceBlurJobs ask for it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.replicas) == (self.autoscaling.mode == 'Fixed')",
                "batch.replicas and batch.autoscaling.mode Fixed belong together; with an autoscaler set minReplicas "
                "and maxReplicas instead",
            ),
            (
                "self.autoscaling.mode != 'Queue' || has(self.broker.embedded) || self.broker.type != 'Redis' || "
                "has(self.broker.redis)",
                "mode Queue counts pages in Redis, and KEDA cannot read where that is from a URL: set "
                "broker.redis.address, or choose another batch.autoscaling.mode",
            ),
        )
    )

    broker: Broker = Field(description="Hands pages to batch workers.")
    storage: tuple[StorageProfile, ...] = Field(
        (), max_length=32, description="Stores that jobs may name.", json_schema_extra=UNIQUE_NAMES
    )
    tls: BatchTLS | None = Field(None, description="How the workers are trusted, where spec.tls is set.")
    workers: BatchWorkers = Field(BatchWorkers(), description="One batch worker pod.")
    replicas: int | None = Field(None, ge=0, le=1000, description="Number of batch workers with mode Fixed.")
    autoscaling: BatchAutoscaling = Field(BatchAutoscaling(), description="How many batch workers there are.")
    scheduling: Scheduling = Field(Scheduling(), description="Where batch workers, broker and planners run.")
    pod_labels: TextMap | None = Field(None, description="Labels added to pods of batch workers and planners.")
    pod_annotations: TextMap | None = Field(None, description="Annotations added to them.")
    service_account_annotations: TextMap | None = Field(
        None, description="Annotations of their service accounts, by which some clouds hand out access to stores."
    )
    egress: tuple[Passthrough, ...] = Field(
        (),
        max_length=100,
        description="Egress rules as in a NetworkPolicy, for the stores and a broker of your own. Empty: TCP to "
        "anywhere, since policies take addresses and only names are known here.",
    )


class EnvVar(Model):
    """An environment variable of the worker's container."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!self.name.startsWith('FACEBLUR_WORKER_')",
                "FACEBLUR_WORKER_ variables are set from the fields of this resource; set those instead",
            ),
            ("!has(self.value) || !has(self.valueFrom)", "set value or valueFrom, not both"),
        )
    )

    name: str = Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", description="Its name.")
    value: Annotated[str, Field(max_length=32768)] | None = Field(None, description="Its value.")
    value_from: Passthrough | None = Field(None, description="Where its value comes from, as in a pod.")


class Volume(Model):
    """A volume of the worker's pod, of the kinds that restricted pods may have."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!(self.name in ['tmp', 'tls', 'client-ca'])",
                "tmp, tls and client-ca are the worker's own volumes; choose another name",
            ),
            (
                "[has(self.configMap), has(self.csi), has(self.downwardAPI), has(self.emptyDir), has(self.ephemeral), "
                "has(self.persistentVolumeClaim), has(self.projected), has(self.secret)].filter(x, x).size() == 1",
                "a volume needs exactly one source",
            ),
        )
    )

    name: str = Field(min_length=1, max_length=63, pattern=_DNS_LABEL, description="Its name.")
    config_map: Passthrough | None = Field(None, description="As in a pod.")
    csi: Passthrough | None = Field(None, description="As in a pod.")
    downward_api: Passthrough | None = Field(None, alias="downwardAPI", description="As in a pod.")
    empty_dir: Passthrough | None = Field(None, description="As in a pod.")
    ephemeral: Passthrough | None = Field(None, description="As in a pod.")
    persistent_volume_claim: Passthrough | None = Field(None, description="As in a pod.")
    projected: Passthrough | None = Field(None, description="As in a pod.")
    secret: Passthrough | None = Field(None, description="As in a pod.")


class PodTemplate(Model):
    """What is added to worker pods."""

    labels: TextMap | None = Field(None, description="Labels added to the pods; those of the operator win over them.")
    annotations: TextMap | None = Field(None, description="Annotations added to the pods.")
    env: tuple[EnvVar, ...] = Field(
        (), max_length=100, description="Environment variables added to the worker.", json_schema_extra=UNIQUE_NAMES
    )
    volumes: tuple[Volume, ...] = Field(
        (), max_length=50, description="Volumes added to the pods.", json_schema_extra=UNIQUE_NAMES
    )
    volume_mounts: tuple[Passthrough, ...] = Field(
        (), max_length=50, description="Where the worker finds the volumes, as in a pod."
    )


class ServiceMonitor(Model):
    """A ServiceMonitor for the Prometheus operator."""

    enabled: bool = Field(False, description="Whether there is one; needs the Prometheus operator's kinds.")
    labels: TextMap | None = Field(None, description="Labels by which a Prometheus selects it.")
    interval_seconds: int = Field(30, ge=1, le=3600, description="How often metrics are read.")


class Metrics(Model):
    """How the workers are watched."""

    service_monitor: ServiceMonitor = Field(ServiceMonitor(), description="A ServiceMonitor for the workers.")


class LocalReference(Model):
    """A Secret in the same namespace."""

    name: SecretName = Field(description="Name of the Secret.")


class FaceBlurClusterSpec(Model):
    """What the user asks for. Every field has a default: an empty spec is a working cluster."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.replicas) == (self.autoscaling.mode == 'Fixed')",
                "replicas and autoscaling.mode Fixed belong together; with an autoscaler set minReplicas and "
                "maxReplicas instead",
            ),
            (
                "!has(self.batch) || !has(self.batch.tls) || has(self.tls)",
                "batch.tls says how the workers' certificate is trusted, and tls, which gives them one, is not set",
            ),
            (
                "!has(self.batch) || !has(self.tls) || !has(self.tls.mutual) || "
                "(has(self.batch.tls) && has(self.batch.tls.clientSecretName))",
                "tls.mutual asks batch workers for a certificate too: set batch.tls.clientSecretName",
            ),
        )
    )

    image: str | None = Field(
        None, min_length=1, max_length=1024, description="Image of the workers. Unset: the operator's own default."
    )
    image_pull_policy: PullPolicy = Field(PullPolicy.IF_NOT_PRESENT, description="When a node fetches the image.")
    image_pull_secrets: tuple[LocalReference, ...] = Field(
        (), max_length=16, description="Secrets for a private registry.", json_schema_extra=UNIQUE_NAMES
    )
    detection: Detection = Field(Detection(), description="How faces are searched for.")
    redaction: Redaction = Field(Redaction(), description="How faces are obscured.")
    metadata: Metadata = Field(Metadata(), description="What is copied beside the pixels.")
    limits: ImageLimits = Field(ImageLimits(), description="What is refused unread.")
    workers: Workers = Field(Workers(), description="One worker pod.")
    replicas: int | None = Field(
        None, ge=0, le=1000, description="Number of workers with autoscaling.mode Fixed; `kubectl scale` sets it."
    )
    autoscaling: Autoscaling = Field(Autoscaling(), description="How many workers there are.")
    tls: TLS | None = Field(None, description="Encryption between callers and workers. Unset: none.")
    scheduling: Scheduling = Field(Scheduling(), description="Where workers run.")
    disruption_budget: DisruptionBudget = Field(
        DisruptionBudget(), description="How many workers drains and evictions may take at once."
    )
    network_policy: NetworkPolicy = Field(NetworkPolicy(), description="Who reaches the workers.")
    service: Service = Field(Service(), description="How callers reach the workers.")
    pod_template: PodTemplate = Field(PodTemplate(), description="What is added to worker pods.")
    metrics: Metrics = Field(Metrics(), description="How the workers are watched.")
    batch: Batch | None = Field(
        None, description="Batches from a store into a store, with FaceBlurJobs. Unset: workers are only called."
    )
    paused: bool = Field(
        False, description="While true the operator writes nothing for this cluster but its status; workers go on."
    )


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One observation about the cluster."""

    type: str = Field(max_length=316, description="What is observed.")
    status: ConditionStatus = Field(description="Whether it holds.")
    reason: str = Field(max_length=1024, description="Why, as one word for programs.")
    message: str = Field(max_length=32768, description="Why, as a sentence for people.")
    last_transition_time: str = Field(
        description="When the status changed last.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int | None = Field(None, description="The generation of the resource that was looked at.")


class ModelVersion(Model):
    """A detection model that the workers run."""

    name: str = Field(max_length=253, description="Its name.")
    sha256: str = Field(max_length=64, description="SHA-256 of its file.")


class BatchStatus(Model):
    """What was observed of the batch workers."""

    replicas: int = Field(0, description="Batch workers that exist.")
    ready_replicas: int = Field(0, description="Batch workers that take pages.")
    desired_replicas: int = Field(0, description="Batch workers that there should be, as the autoscaler decided.")


class FaceBlurClusterStatus(Model):
    """What was observed last."""

    observed_generation: int | None = Field(None, description="The generation that the rest of the status is about.")
    conditions: tuple[Condition, ...] = Field(
        (),
        description="Ready, Progressing, Degraded and one for each optional part that was asked for.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    replicas: int = Field(0, description="Workers that exist.")
    ready_replicas: int = Field(0, description="Workers that answer.")
    updated_replicas: int = Field(0, description="Workers that run the present configuration.")
    desired_replicas: int = Field(0, description="Workers that there should be, as the autoscaler decided.")
    selector: str = Field("", description="Label selector of the workers, for the scale subresource.")
    address: str = Field("", description="What callers dial, such as dns:///demo.shop.svc.cluster.local:50051.")
    external_address: str = Field(
        "", description="What callers of the second Service dial, where service.type asks for one."
    )
    image: str = Field("", description="Image that the ready workers run.")
    image_id: str = Field("", alias="imageID", description="Digest of that image.")
    version: str = Field("", description="FaceBlur version that the ready workers report.")
    models: tuple[ModelVersion, ...] = Field((), max_length=16, description="Models that the ready workers report.")
    batch: BatchStatus | None = Field(None, description="The batch workers, where spec.batch asks for some.")


class ObjectMeta(Model):
    """The part of an object's metadata that is read."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 1
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None


class FaceBlurCluster(Model):
    """A set of workers in a namespace that obscures faces in the pictures it is sent."""

    metadata: ObjectMeta
    spec: FaceBlurClusterSpec = FaceBlurClusterSpec()
    status: FaceBlurClusterStatus = FaceBlurClusterStatus()

    @property
    def name(self) -> str:
        """Name of the resource."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """Namespace of the resource."""
        return self.metadata.namespace
