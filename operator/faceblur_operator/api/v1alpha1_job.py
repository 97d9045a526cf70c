"""FaceBlurJob as users write it: the source from which `crdgen` makes its CustomResourceDefinition.

What is asked for here is what `faceblur batch run` is asked for on the command line; the planner, which a Kubernetes
Job runs, is given it as a file. ``status.progress`` is the planner's own: nobody else can read the storage, and nobody
else writes there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from .v1alpha1 import (
    UNIQUE,
    Condition,
    Keep,
    Method,
    Model,
    ObjectMeta,
    ObjectName,
    Profile,
    QuantityMap,
    Shape,
    rules,
)

JOB_KIND = "FaceBlurJob"
JOB_PLURAL = "faceblurjobs"

_LOCATION = r"^(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]{1,62}(/[^?#]*)?$"
_CONTROL = r"^[^\x00-\x1f\x7f]*$"
Suffix = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[^/\x00-\x1f\x7f]+$")]
Glob = Annotated[str, Field(min_length=1, max_length=1024, pattern=_CONTROL)]
MetadataName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-z0-9-]+$")]


def _folder(path: str) -> str:
    """CEL: a location with a slash at its end, so that one is told from another that only begins alike."""
    return f"({path}.location.endsWith('/') ? {path}.location : {path}.location + '/')"


class Format(StrEnum):
    """Format of results."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    TIFF = "tiff"
    AVIF = "avif"


class Subsampling(StrEnum):
    """Chroma subsampling of JPEG results."""

    FULL = "4:4:4"
    HALF = "4:2:2"
    QUARTER = "4:2:0"


class ClusterReference(Model):
    """A FaceBlurCluster in the same namespace."""

    name: ObjectName = Field(description="Name of the FaceBlurCluster.")


class Place(Model):
    """A bucket, or a part of one."""

    location: str = Field(
        max_length=1024,
        pattern=_LOCATION,
        description="s3://BUCKET/PREFIX/ (also gs:// and az://, which are not tested).",
    )
    profile: str = Field(
        "",
        max_length=63,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
        description="Storage profile of the cluster (its spec.batch.storage) with endpoint and credentials. Empty: the "
        "one called default.",
    )


class Selection(Model):
    """Which objects are worked on; every field narrows."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!has(self.maxBytes) || self.minBytes <= self.maxBytes", "minBytes must not be above maxBytes"),
        )
    )

    prefix: str = Field(
        "", max_length=1024, pattern=_CONTROL, description="The key begins with it. The rest is not even listed."
    )
    suffixes: tuple[Suffix, ...] | None = Field(
        None,
        max_length=64,
        description="The key ends with one of them, whatever the case; []: any key. Unset: extensions of pictures.",
        json_schema_extra=UNIQUE,
    )
    include: tuple[Glob, ...] = Field(
        (),
        max_length=64,
        description="The key fits one of these globs: * and ? stop at a slash, ** does not. Empty: any key.",
        json_schema_extra=UNIQUE,
    )
    exclude: tuple[Glob, ...] = Field(
        (), max_length=64, description="The key fits none of these globs.", json_schema_extra=UNIQUE
    )
    newer_than: str | None = Field(
        None,
        max_length=64,
        description="Modified after this moment.",
        json_schema_extra={"format": "date-time"},
    )
    min_bytes: int = Field(0, ge=0, le=1099511627776, description="Shortest object.")
    max_bytes: int | None = Field(None, ge=0, le=1099511627776, description="Longest object. Unset: any.")


class Headers(Model):
    """What is kept beside results."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!self.keepMetadata.exists(name, name.startsWith('faceblur-'))",
                "metadata called faceblur-... is FaceBlur's own and cannot be kept",
            ),
        )
    )

    cache_control: str | None = Field(
        None, min_length=1, max_length=256, pattern=r"^[ -~]+$", description="Cache-Control of every result."
    )
    keep_cache_control: bool = Field(False, description="Copy the source's Cache-Control, where it has one.")
    keep_metadata: tuple[MetadataName, ...] = Field(
        (),
        max_length=64,
        description="User metadata that is copied from the source, though it may name persons and places.",
        json_schema_extra=UNIQUE,
    )


class WholeMargin(Model):
    """How far an obscured region reaches past the detected face."""

    sides: float = Field(ge=0, le=2, description="Left and right, each as a share of the face's width.")
    top: float = Field(ge=0, le=2, description="Above, as a share of the face's height.")
    bottom: float = Field(ge=0, le=2, description="Below, as a share of the face's height.")
    pixels: float = Field(0, ge=0, le=1000, description="Added on all sides, in pixels.")


class Options(Model):
    """What is asked of the workers, where the cluster's defaults do not do."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.minFace) || !has(self.maxFace) || self.minFace <= self.maxFace",
                "minFace must not be above maxFace",
            ),
        )
    )

    profile: Profile | None = Field(
        None, description="How faces are searched for: the cluster's own profile or one that it also serves."
    )
    min_score: float | None = Field(None, ge=0, le=1, description="Replaces the profile's measured thresholds.")
    min_face: float | None = Field(
        None, ge=0, le=100000, description="Faces whose longer side is shorter than this many pixels are left alone."
    )
    max_face: float | None = Field(
        None, ge=1, le=100000, description="Faces whose longer side is longer than this many pixels are left alone."
    )
    denoise: float | None = Field(
        None, ge=0, le=20, description="Strength of the noise filter before detection; results are not filtered."
    )
    method: Method | None = Field(None, description="blur, mosaic or solid.")
    cells: int | None = Field(None, ge=1, le=8, description="Cells across an obscured face. Fewer hide more.")
    shape: Shape | None = Field(None, description="Outline of obscured regions.")
    margin: WholeMargin | None = Field(None, description="Growth of the detected boxes.")
    feather: float | None = Field(
        None, ge=0, le=0.5, description="Width of the blended rim, as a share of the region's longer side."
    )
    verify: bool | None = Field(
        None, description="Detect again on every result and refuse it if a face is found outside the regions."
    )
    format: Format | None = Field(None, description="Format of results. Unset: that of the source.")
    quality: int | None = Field(None, ge=1, le=100, description="Quality of JPEG, WebP and AVIF results.")
    subsampling: Subsampling | None = Field(None, description="Chroma subsampling of JPEG results.")
    keep: tuple[Keep, ...] | None = Field(
        None,
        max_length=5,
        description="Metadata that is copied to results; []: none.",
        json_schema_extra=UNIQUE,
    )


class PlannerResources(Model):
    """CPU and memory of the planner."""

    requests: QuantityMap = Field(
        {"cpu": "100m", "memory": "128Mi"}, description="What the scheduler sets aside for the planner."
    )
    limits: QuantityMap = Field({"memory": "512Mi"}, description="What the planner may use at most.")


class PlannerPod(Model):
    """The planner's pod. It lists, hands out and counts; the pictures go through batch workers."""

    resources: PlannerResources = Field(PlannerResources(), description="CPU and memory of the planner.")


class FaceBlurJobSpec(Model):
    """What the user asks for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.clusterRef == oldSelf.clusterRef", "clusterRef cannot be changed; make another FaceBlurJob"),
            (
                "self.source == oldSelf.source",
                "source cannot be changed; make another FaceBlurJob",
            ),
            (
                "self.destination == oldSelf.destination",
                "destination cannot be changed; make another FaceBlurJob",
            ),
            (
                "has(self.schedule) == has(oldSelf.schedule)",
                "a job gets or loses its schedule only by being made anew",
            ),
            (
                "self.source.profile != self.destination.profile || "
                f"!({_folder('self.source')}.startsWith({_folder('self.destination')}) || "
                f"{_folder('self.destination')}.startsWith({_folder('self.source')}))",
                "destination and source must not be the same or lie in each other: results would be taken for pictures",
            ),
            ("!has(self.timeZone) || has(self.schedule)", "timeZone is only read with schedule"),
            (
                "!has(self.startingDeadlineSeconds) || has(self.schedule)",
                "startingDeadlineSeconds is only read with schedule",
            ),
            (
                "!has(self.ttlSecondsAfterFinished) || !has(self.schedule)",
                "a job with a schedule never finishes, so ttlSecondsAfterFinished has no meaning for it",
            ),
            (
                "!has(self.schedule) || !self.schedule.contains('TZ')",
                "give the time zone in timeZone, not in schedule",
            ),
        )
    )

    cluster_ref: ClusterReference = Field(
        description="FaceBlurCluster with spec.batch whose workers do it. Cannot be changed."
    )
    source: Place = Field(description="Where the pictures are. Cannot be changed.")
    destination: Place = Field(description="Where results, ledger and report go. Cannot be changed.")
    selection: Selection = Field(Selection(), description="Which objects are worked on.")
    template: str = Field(
        "{dir}/{stem}{ext}",
        max_length=256,
        pattern=r"^[^{}]*\{dir\}/[^{}/]*\{stem\}[^{}/]*\{ext\}$",
        description="What results are called: text may stand before {dir} (a folder) and around {stem}.",
    )
    headers: Headers = Field(Headers(), description="What is kept beside results.")
    options: Options = Field(Options(), description="What is asked of the workers, where their defaults do not do.")
    page_size: int = Field(1000, ge=1, le=10000, description="Most objects that one task works on.")
    parallelism: int | None = Field(
        None,
        ge=1,
        le=10000,
        description="Pages that are worked on at once. Unset: as many as the most batch workers of the cluster can.",
    )
    attempts: int = Field(3, ge=1, le=100, description="Tries, alone, of a picture that takes workers with it.")
    max_errors: int | None = Field(
        None, ge=0, le=1000000000, description="The job is stopped when more objects have no result."
    )
    max_error_percent: float | None = Field(
        None, ge=0, le=100, description="The same as a share of the objects looked at, once these are 100 or all."
    )
    deadline_seconds: int | None = Field(
        None, ge=1, le=315360000, description="The job is stopped so long after a pass over the source began."
    )
    check: bool = Field(False, description="Look at every result, also if the ledger says that it is there.")
    samples: int = Field(0, ge=0, le=100, description="Results that the report shows; they are copied into it.")
    suspend: bool = Field(
        False,
        description="While true nobody works on it, and batch workers leave what they have. With a schedule: no run "
        "begins; one that is under way goes on.",
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        le=315360000,
        description="The FaceBlurJob is deleted so long after it finished; results and ledger stay. Unset: never.",
    )
    schedule: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="When it runs, as for a CronJob, such as `0 3 * * *`. A run does what is new or changed. Unset: "
        "once, at once.",
    )
    time_zone: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9_+/-]+$",
        description="Of schedule, such as Europe/Berlin. Unset: that of the Kubernetes control plane.",
    )
    starting_deadline_seconds: int | None = Field(
        None, ge=10, le=31536000, description="A run that could not begin in time is left out after so long."
    )
    planner: PlannerPod = Field(PlannerPod(), description="The planner's pod.")


class Phase(StrEnum):
    """Where a job, or its last run, stands."""

    PENDING = "Pending"
    PLANNING = "Planning"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    CANCELLED = "Cancelled"


FINISHED = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.STOPPED, Phase.CANCELLED})


class Progress(Model):
    """What the planner says; every object is in exactly one of the counts from blurred to changed once it is done."""

    run: str = Field("", max_length=63, description="Unique id of the Kubernetes Job whose planner says it.")
    phase: str = Field("", max_length=63, description="In the planner's words.")
    reason: str = Field("", max_length=4096, description="Why it does not go on, if it does not.")
    job: str = Field("", max_length=128, description="Id of the ledger under .faceblur/jobs/ of the destination.")
    generation: int = Field(0, description="Pass over the source.")
    objects: int = Field(0, description="Objects that are to be done, as far as they are listed.")
    listed: bool = Field(False, description="Whether that is all.")
    skipped: int = Field(0, description="Objects that the selection leaves out.")
    done: int = Field(0, description="Objects with an outcome.")
    blurred: int = Field(0, description="Results with obscured faces.")
    no_face: int = Field(0, description="Results of pictures in which no face was found.")
    unchanged: int = Field(0, description="Results that were there already.")
    refused: int = Field(0, description="Pictures that are at fault themselves.")
    failed: int = Field(0, description="Objects that could not be read, blurred or written.")
    quarantined: int = Field(0, description="Pictures that took workers with them.")
    changed: int = Field(0, description="Objects that were replaced or removed meanwhile.")
    errors: int = Field(0, description="Objects that count against the error budget.")
    faces: int = Field(0, description="Faces that were obscured.")
    bytes_in: int = Field(0, description="Length of the pictures that are done.")
    bytes_out: int = Field(0, description="Length of their results.")
    percent: int | None = Field(None, description="Share of the objects that have an outcome, once all are listed.")
    rate: str = Field("", max_length=32, description="Objects per second of late.")
    time_left: str = Field("", max_length=32, description="At that rate.")
    report: str = Field("", max_length=1024, description="Key of report.html under the destination, once it is there.")
    updated: str | None = Field(
        None, description="When the planner said it.", json_schema_extra={"format": "date-time"}
    )


class FaceBlurJobStatus(Model):
    """What was observed last; progress is what the planner says."""

    observed_generation: int | None = Field(None, description="The generation that the rest of the status is about.")
    phase: Phase | None = Field(None, description="Where the job stands; with a schedule, its last run.")
    conditions: tuple[Condition, ...] = Field(
        (),
        description="Complete, Failed, Progressing, ClusterReady, Degraded; Suspended and Scheduled where asked for.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    finished_pass: str = Field("", max_length=63, description="Digest of what was asked for when the job finished.")
    run: str = Field("", max_length=253, description="Name of the Kubernetes Job that the status is about.")
    start_time: str | None = Field(None, description="When that began.", json_schema_extra={"format": "date-time"})
    completion_time: str | None = Field(
        None, description="When it finished, whatever the end.", json_schema_extra={"format": "date-time"}
    )
    last_schedule_time: str | None = Field(
        None, description="When a run was due last.", json_schema_extra={"format": "date-time"}
    )
    progress: Progress | None = Field(None, description="What the planner says.")


class FaceBlurJob(BaseModel):
    """Takes the pictures of a bucket to another one, with the faces obscured, once or by a schedule."""

    metadata: ObjectMeta
    spec: FaceBlurJobSpec
    status: FaceBlurJobStatus = FaceBlurJobStatus()

    @property
    def name(self) -> str:
        """Name of the resource."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """Namespace of the resource."""
        return self.metadata.namespace
