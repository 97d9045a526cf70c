"""The model of a batch: what has to hold of any simulation of it, with round figures."""

from __future__ import annotations

import dataclasses

import pytest

from support.batch_model import Costs, Job, Machines, Model, Run

STORE = {"get": 0.0005, "put": 0.001, "read": 0.0005, "write": 0.0005, "list": 0.005}
COSTS = Costs(
    pictures=(0.03, 0.05),
    batch=0.004,
    store=STORE,
    wait={kind: 2 * seconds for kind, seconds in STORE.items()},
    plan_page=0.002,
    plan_object=0.00002,
    tally=0.00001,
    look=0.001,
    publish=0.001,
    conclude_object=0.00005,
    broker_page=0.0002,
    broker_idle=0.002,
    start=0.1,
)


def simulated(workers: int, objects: int, costs: Costs = COSTS, store_cores: int = 32, **job: float) -> Run:
    machines = Machines(workers=workers, batch_workers=workers, store_cores=store_cores)
    return Model(costs, machines, Job(**{"objects": objects, "parallelism": 4 * workers, **job})).run()  # type: ignore[arg-type]


@pytest.mark.parametrize("shared", [None, 2])
@pytest.mark.parametrize(("objects", "page_size"), [(1, 1000), (1000, 1), (3001, 250), (500, 16)])
def test_every_picture_is_done_exactly_once(objects: int, page_size: int, shared: int | None) -> None:
    machines = Machines(workers=2, batch_workers=3, shared=shared)
    run = Model(COSTS, machines, Job(objects=objects, page_size=page_size, parallelism=2)).run()
    assert run.done == [1] * objects
    assert run.requests["get"] == run.requests["put"] == objects


def test_one_worker_reaches_the_rate_of_its_threads() -> None:
    run = simulated(1, 3000)
    assert run.rate == pytest.approx(2 / COSTS.picture, rel=0.02)
    assert run.share["worker"] == pytest.approx(1, abs=0.01)


def test_twice_the_workers_do_twice_as_much_below_every_limit() -> None:
    rates = {workers: simulated(workers, 2000 * workers).rate for workers in (1, 2, 4, 8)}
    for workers in (1, 2, 4):
        assert rates[2 * workers] == pytest.approx(2 * rates[workers], rel=0.05)


def test_a_store_at_its_limit_is_what_holds_the_workers_up() -> None:
    slow = dataclasses.replace(COSTS, store=STORE | {"put": 0.02}, wait=dict.fromkeys(STORE, 0.02))
    run = simulated(4, 4000, slow, store_cores=1)
    assert run.share["store"] == pytest.approx(1, abs=0.02)
    assert run.rate == pytest.approx(1 / (0.02 + STORE["get"]), rel=0.05)


def test_on_shared_cores_everybody_takes_part_of_them() -> None:
    run = Model(COSTS, Machines(workers=1, batch_workers=1, shared=2), Job(objects=2000, parallelism=4)).run()
    each = COSTS.picture + COSTS.batch + STORE["get"] + STORE["put"]
    assert run.rate == pytest.approx(2 / each, rel=0.03)


def test_a_page_alone_has_as_many_pictures_in_work_as_it_may() -> None:
    machines = Machines(workers=8, batch_workers=1, pages=1, concurrency=6)
    run = Model(COSTS, machines, Job(objects=2000, page_size=2000, growth=1, parallelism=1)).run()
    each = COSTS.wait["get"] + COSTS.batch / 2 + COSTS.picture
    assert run.rate == pytest.approx(6 / each, rel=0.05)


def test_nothing_is_faster_than_the_workers_can_be() -> None:
    run = simulated(4, 4000)
    assert run.blurred_after >= run.ideal
    assert run.seconds >= run.blurred_after


def test_slow_pictures_at_the_end_hold_up_a_job_of_large_pages_longer() -> None:
    small, large = (simulated(8, 8000, page_size=size, slow=200, slower=20.0).tail for size in (64, 2000))
    assert small < large


def test_the_ledger_costs_little_beside_the_pictures() -> None:
    run = simulated(1, 10_000)
    ledger = sum(run.requests[kind] for kind in ("read", "write", "list"))
    assert ledger / 10_000 < 0.05


def test_the_same_seed_gives_the_same() -> None:
    assert simulated(2, 1000) == simulated(2, 1000)
    assert simulated(2, 1000, seed=2) != simulated(2, 1000)
