"""What a round asks for, and what it has reconciled."""

from __future__ import annotations

import pytest

from faceblur_operator.kinds import ClusterKind, JobKind
from faceblur_operator.kube import Forbidden, Unreachable
from faceblur_operator.liveness import Liveness
from faceblur_operator.metrics import Metrics
from faceblur_operator.observed import Key
from faceblur_operator.reconciler import Known, Reconciler
from faceblur_operator.rounds import Rounds
from faceblur_operator.watches import Watches
from faceblur_operator.workers import Reports
from support.clusters import SETTINGS
from support.fake_kube import CLUSTER, FakeKube

KEY = Key("FaceBlurCluster", "shop", "demo")
KEDA = "keda.sh/v1alpha1"


class Setup:
    """Rounds with a clock that tests turn."""

    def __init__(self, namespaces: tuple[str, ...] = ()) -> None:
        self.now = 1000.0
        self.kube = FakeKube()
        self.added: list[Key] = []
        self.watches = Watches(lambda: self.now)
        reports = Reports(self._ask)
        self.metrics = Metrics()
        kinds = (ClusterKind(self.kube, SETTINGS, reports), JobKind(self.kube, SETTINGS))
        self.reconciler = Reconciler(self.kube, kinds, watches=self.watches, metrics=self.metrics)
        self.rounds = Rounds(
            self.kube,
            self.reconciler,
            queue=self,
            watches=self.watches,
            metrics=self.metrics,
            namespaces=namespaces,
            tick_seconds=15,
            resync_seconds=300,
            clock=lambda: self.now,
        )
        self.liveness = Liveness(self.rounds, self.watches, stale_seconds=100)

    def add(self, key: Key) -> None:
        self.added.append(key)

    def suggest(self, key: Key) -> None:
        self.added.append(key)

    async def _ask(self, address: str) -> None:
        return None

    def know(self, **known: object) -> None:
        """The cluster was looked at just now."""
        self.reconciler.known[KEY] = Known(looked=self.now, patience=1.0, **known)  # type: ignore[arg-type]
        metadata = self.kube.cluster["metadata"]
        self.watches.seen(KEY, {metadata["uid"]: (CLUSTER.kind, metadata["resourceVersion"])}, self.now)

    async def tick(self, seconds: float = 0) -> list[Key]:
        """Let time pass and go round; returns what is to be reconciled."""
        self.added.clear()
        self.now += seconds
        await self.rounds.tick()
        return list(self.added)


async def test_a_cluster_that_no_watch_has_told_of_is_reconciled() -> None:
    setup = Setup()
    assert await setup.tick() == [KEY]
    setup.know()
    assert await setup.tick() == []
    setup.kube.change(paused=True)
    assert await setup.tick() == [KEY]


async def test_a_cluster_that_is_gone_is_noticed() -> None:
    setup = Setup()
    await setup.tick()
    setup.know()
    del setup.kube.objects[CLUSTER]
    assert await setup.tick() == [KEY]


async def test_kinds_that_come_and_go_are_noticed_and_concern_all_clusters() -> None:
    setup = Setup()
    await setup.tick()
    setup.know()
    assert setup.rounds.changed.is_set()
    setup.rounds.changed.clear()
    await setup.tick()
    assert not setup.rounds.changed.is_set()
    setup.kube.groups |= {KEDA, "batch/v1"}
    assert await setup.tick() == [KEY]
    assert setup.rounds.changed.is_set()
    assert setup.reconciler.apis == {KEDA, "faceblur.io/v1alpha1"}
    setup.kube.groups -= {KEDA}
    assert await setup.tick() == [KEY]


async def test_without_the_kind_itself_nothing_is_listed(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup()
    setup.kube.groups = frozenset()
    await setup.tick()
    await setup.tick()
    assert setup.kube.log == ["apis", "apis"]
    assert caplog.text.count("is not installed") == 1
    setup.kube.groups = frozenset({"faceblur.io/v1alpha1"})
    assert await setup.tick() == [KEY]


async def test_a_secret_that_is_waited_for_is_asked_for_in_every_round_and_one_that_is_there_less_often() -> None:
    setup = Setup()
    await setup.tick()
    setup.know(secrets={"tls": ""})
    assert await setup.tick() == []
    setup.kube.secrets.add("tls")
    assert await setup.tick() == [KEY]
    setup.know(secrets={"tls": "1"})
    setup.kube.log.clear()
    for _ in range(8):
        await setup.tick()
    assert setup.kube.log.count("secret tls") == 2
    setup.kube.secrets.clear()
    assert any([await setup.tick() for _ in range(4)])


async def test_a_ready_cluster_is_looked_at_again_when_its_time_has_come_and_another_one_sooner() -> None:
    setup = Setup()
    await setup.tick()
    setup.know(ready=True)
    assert await setup.tick(280) == []
    assert await setup.tick(10) == [KEY]
    setup.know(ready=False)
    assert await setup.tick(40) == []
    assert await setup.tick(10) == [KEY]


async def test_each_namespace_that_is_served_is_listed() -> None:
    setup = Setup(namespaces=("shop", "press"))
    await setup.tick()
    assert [entry for entry in setup.kube.log if entry.startswith("FaceBlurClusters")] == [
        "FaceBlurClusters shop",
        "FaceBlurClusters press",
    ]


async def test_all_is_well_as_long_as_rounds_succeed_or_a_watch_tells_something() -> None:
    setup = Setup()
    await setup.tick()
    setup.now += 90
    assert setup.liveness.problem() is None
    setup.now += 20
    assert "nothing was heard from the API server for 110 s" in str(setup.liveness.problem())
    setup.watches.told(KEY, "Pod", "a", "1")
    assert setup.liveness.problem() is None
    setup.now += 101
    setup.kube.failures["apis"] = Unreachable("list", 0, "Unreachable", "no")
    with pytest.raises(Unreachable):
        await setup.tick()
    assert setup.liveness.problem()
    setup.kube.failures.clear()
    await setup.tick()
    assert setup.liveness.problem() is None


async def test_a_watch_that_has_died_is_noticed_although_the_api_server_answers() -> None:
    setup = Setup()
    await setup.tick()
    setup.know()
    for _ in range(10):
        await setup.tick(11)
    assert "no watch has told of" in str(setup.liveness.problem())
    metadata = setup.kube.cluster["metadata"]
    setup.watches.told(KEY, CLUSTER.kind, metadata["uid"], metadata["resourceVersion"])
    assert setup.liveness.problem() is None


async def test_a_namespace_that_is_closed_to_the_operator_does_not_close_the_others() -> None:
    setup = Setup(namespaces=("press", "shop"))
    await setup.tick()
    setup.know()
    setup.kube.failures["FaceBlurClusters press"] = Forbidden("list", 403, "Forbidden", "no")
    setup.kube.change(paused=True)
    assert await setup.tick() == [KEY]
    setup.know()
    setup.kube.failures["FaceBlurClusters shop"] = Forbidden("list", 403, "Forbidden", "no")
    assert await setup.tick() == [], "it is not known to be gone"
    assert setup.rounds.age() == 0


async def test_secrets_that_may_not_be_read_do_not_end_a_round() -> None:
    setup = Setup()
    await setup.tick()
    setup.know(secrets={"tls": "", "ca": ""})
    setup.kube.failures["secret tls"] = Forbidden("get", 403, "Forbidden", "no")
    setup.kube.secrets.add("ca")
    assert await setup.tick() == [KEY]
