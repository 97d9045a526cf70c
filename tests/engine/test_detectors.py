import contextlib
import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceblur_engine.detectors import create_detector, runtimes
from faceblur_engine.detectors.boxes import merge, of_faces, overlaps, suppress
from faceblur_engine.detectors.centerface import BALANCED, TILES, CenterFaceDetector, coarse_size, decode, plan_tiles
from faceblur_engine.detectors.runtimes import OpenVinoNetwork, _Requests
from faceblur_engine.errors import InvalidOptions, RuntimeUnavailable
from faceblur_engine.types import Profile
from support.photos import WITH_FACES, WITHOUT_FACES, pixels_of


@pytest.fixture(scope="module", params=list(Profile))
def detector(request):
    return create_detector(request.param)


def unmatched(faces: np.ndarray, others: np.ndarray, iou: float) -> np.ndarray:
    return np.array([face for face in faces if not len(others) or overlaps(face, others).max() < iou])


def test_every_profile_finds_the_astronaut(detector):
    faces = detector.detect(pixels_of("astronaut.png"))
    eyes_and_mouth = [(210, 115), (245, 115), (228, 165)]
    assert any(
        all(f.box.x < x < f.box.x + f.box.w and f.box.y < y < f.box.y + f.box.h for x, y in eyes_and_mouth)
        for f in faces
    )


def test_every_profile_finds_faces_in_the_street(detector):
    assert len(detector.detect(pixels_of("city.jpg"))) >= 6


def test_nothing_is_found_in_a_cup_of_coffee(detector):
    assert detector.detect(pixels_of("coffee.png")) == []


def test_a_minimum_score_replaces_the_thresholds(detector):
    street = pixels_of("city.jpg")
    scores = sorted(face.score for face in detector.detect(street))
    assert min(face.score for face in detector.detect(street, 0.1)) < scores[0]
    assert all(face.score >= 0.7 for face in detector.detect(street, 0.7))


def test_boxes_lie_in_the_picture(detector):
    street = pixels_of("city.jpg")
    height, width = street.shape[:2]
    for face in detector.detect(street, 0.1):
        assert face.box.x >= -0.01
        assert face.box.y >= -0.01
        assert face.box.x + face.box.w <= width + 0.01
        assert face.box.y + face.box.h <= height + 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (7, 9), (33, 31)])
def test_pictures_of_any_shape_are_searched(detector, size):
    assert detector.detect(np.full((*size, 3), 127, np.uint8)) == []


def test_a_picture_turned_upside_down_is_not_read_past_its_memory(detector):
    turned = pixels_of("astronaut.png")[::-1, ::-1]
    assert detector.detect(np.ascontiguousarray(turned)) == detector.detect(turned.copy())


def test_the_thorough_profile_finds_what_the_balanced_one_finds():
    street = pixels_of("city.jpg")
    balanced = of_faces(create_detector(Profile.BALANCED).detect(street, 0.5))
    thorough = of_faces(create_detector(Profile.THOROUGH).detect(street, 0.3))
    assert len(balanced) >= 8
    assert len(unmatched(balanced, thorough, 0.5)) == 0


def test_onnx_runtime_gives_the_same_boxes_as_openvino():
    street = pixels_of("city.jpg")
    openvino, onnx = (
        of_faces(create_detector(Profile.BALANCED, runtime=runtime).detect(street, 0.4))
        for runtime in ("openvino", "onnxruntime")
    )
    # With bf16 a doubtful box can come or go, and with it the tiles that its neighbours are seen in.
    for faces, others in ((openvino, onnx), (onnx, openvino)):
        strong = faces[faces[:, 4] >= 0.5]
        assert len(strong) >= 15
        assert len(unmatched(strong, others, 0.6)) == 0


@pytest.mark.filterwarnings("ignore")  # of libraries that mediapipe imports
@pytest.mark.parametrize("name", [*WITH_FACES, *WITHOUT_FACES])
def test_litert_finds_the_faces_that_mediapipe_finds(name):
    pytest.importorskip("mediapipe", reason="mediapipe 0.10.33 has no wheel for this platform")
    picture = pixels_of(name)
    reference = of_faces(create_detector(Profile.FAST, runtime="mediapipe").detect(picture, 0.3))
    ours = of_faces(create_detector(Profile.FAST, runtime="litert").detect(picture, 0.3))
    # The two scale the picture down differently, so boxes differ by a few pixels and scores by a tenth or two.
    for faces, others in ((reference, ours), (ours, reference)):
        assert len(unmatched(faces[faces[:, 4] >= 0.5], others, 0.6)) == 0
    assert len(reference) or name in WITHOUT_FACES


def test_litert_and_openvino_give_the_same_boxes():
    street = pixels_of("city.jpg")
    one, other = (
        of_faces(create_detector(Profile.FAST, runtime=runtime).detect(street)) for runtime in ("litert", "openvino")
    )
    assert len(one) == len(other) >= 6
    assert len(unmatched(one, other, 0.9)) == 0


def test_an_unknown_runtime_is_refused_with_the_names_of_the_known_ones():
    with pytest.raises(InvalidOptions, match="openvino, onnxruntime"):
        create_detector(Profile.FAST, runtime="cuda")


@pytest.mark.parametrize(
    ("profile", "runtime"),
    [(Profile.BALANCED, "litert"), (Profile.FAST, "onnxruntime"), (Profile.THOROUGH, "mediapipe")],
)
def test_a_runtime_that_cannot_run_the_model_is_refused(profile, runtime):
    with pytest.raises(RuntimeUnavailable, match=runtime):
        create_detector(profile, runtime=runtime)


@pytest.mark.parametrize("profile", [Profile.BALANCED, Profile.FAST])
def test_without_openvino_the_fallback_runs(monkeypatch, profile):
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    detector = create_detector(profile)
    assert detector.models[0].runtime.split()[0] in ("onnxruntime", "litert")
    assert detector.detect(pixels_of("astronaut.png"))


def test_all_picture_sizes_together_need_few_network_sizes():
    sizes = {coarse_size(width, height) for width in range(20, 6000, 97) for height in range(20, 6000, 89)}
    assert len(sizes) == 4
    assert len(sizes | {(side, side) for side in TILES}) <= OpenVinoNetwork.KEPT_SIZES


def maps(heat: np.ndarray, side: float = 40, across: float = 0) -> list[np.ndarray]:
    """What the network would answer: this heat, faces of so many pixels, so many cells off to the right."""
    sizes = np.full((1, 2, *heat.shape), np.log(side / 4), np.float32)
    offsets = np.stack([np.zeros_like(heat), np.full_like(heat, across)])[np.newaxis]
    return [heat[np.newaxis, np.newaxis], sizes, offsets]


class TestDecoding:
    def test_a_peak_is_a_face_of_the_size_and_at_the_offset_that_its_cell_says(self):
        heat = np.zeros((24, 32), np.float32)
        heat[10, 12] = 0.9
        (face,) = decode(maps(heat, across=0.25), 128, 96, 0.3)
        assert face.tolist() == pytest.approx([31, 22, 71, 62, 0.9], abs=0.01)

    def test_which_of_two_like_neighbours_is_the_peak_does_not_matter(self):
        heat = np.zeros((24, 32), np.float32)
        heat[10, 12:14] = 0.8, 0.801
        (face,) = decode(maps(heat), 128, 96, 0.3)
        heat[10, 12:14] = 0.801, 0.8
        (other,) = decode(maps(heat), 128, 96, 0.3)
        assert face[:4] == pytest.approx(other[:4], abs=0.05)

    def test_cells_that_are_hardly_warm_do_not_move_a_face(self):
        heat = np.zeros((24, 32), np.float32)
        heat[10, 12:14] = 0.9, 0.3
        (face,) = decode(maps(heat), 128, 96, 0.3)
        assert face[:4] == pytest.approx([30, 22, 70, 62], abs=0.05)

    @pytest.mark.parametrize(("row", "column"), [(0, 0), (23, 31)])
    def test_a_face_in_a_corner_ends_at_the_border(self, row, column):
        heat = np.zeros((24, 32), np.float32)
        heat[row, column] = 0.9
        (face,) = decode(maps(heat), 128, 96, 0.3)
        assert face[:4] == pytest.approx([0, 0, 22, 22] if row == 0 else [106, 74, 128, 96], abs=0.05)

    def test_a_faint_peak_beside_a_hot_one_keeps_its_own_box(self):
        heat = np.zeros((24, 32), np.float32)
        heat[10, 12], heat[10, 13] = 2e-3, 0.9
        found = decode(maps(heat, side=2), 128, 96, 1e-3)  # so small that neither suppresses the other
        assert found[1] == pytest.approx([49, 41, 51, 43, 2e-3], abs=0.01)

    def test_cold_maps_hold_no_face(self):
        assert decode(maps(np.zeros((24, 32), np.float32)), 128, 96, 0.3).shape == (0, 5)


class TestTiles:
    rectangles = st.lists(
        st.tuples(st.floats(-50, 1500), st.floats(-50, 900), st.floats(1, 300), st.floats(1, 300)),
        min_size=1,
        max_size=90,
    )

    @given(rectangles)
    @settings(max_examples=60, deadline=None)
    def test_the_centre_of_every_candidate_is_in_a_tile(self, drawn):
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in drawn], np.float32)
        tiles = plan_tiles(boxes, 1600, 960)
        clipped = np.clip(boxes, 0, [1600, 960, 1600, 960])
        for x, y in (clipped[:, :2] + clipped[:, 2:]) / 2:
            assert any(left <= x <= left + side and top <= y <= top + side for left, top, side in tiles)

    @given(rectangles)
    @settings(max_examples=30, deadline=None)
    def test_tiles_have_the_known_sizes_and_start_in_the_canvas(self, drawn):
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in drawn], np.float32)
        for x, y, side in plan_tiles(boxes, 1600, 960):
            assert side in TILES
            assert 0 <= x < 1600
            assert 0 <= y < 960

    def test_close_candidates_share_a_tile_and_distant_ones_do_not(self):
        close = np.array([[10, 10, 90, 90], [100, 20, 180, 100]], np.float32)
        assert plan_tiles(close, 1600, 960) == [(0, 0, 192)]
        distant = np.array([[10, 10, 90, 90], [1400, 700, 1480, 780]], np.float32)
        assert sorted(side for _, _, side in plan_tiles(distant, 1600, 960)) == [192, 192]


class TestBoxes:
    def test_merging_averages_by_score_and_keeps_the_best_score(self):
        merged = merge(np.array([[0, 0, 10, 10, 0.6], [2, 0, 12, 10, 0.2]], np.float32), 0.4)
        assert merged.tolist() == [pytest.approx([0.5, 0, 10.5, 10, 0.6])]

    def test_suppression_keeps_the_best_of_each_group(self):
        kept = suppress(np.array([[0, 0, 10, 10, 0.5], [1, 0, 11, 10, 0.9], [50, 50, 60, 60, 0.3]], np.float32), 0.45)
        assert kept.tolist() == [1, 2]

    def test_a_neighbours_face_is_not_suppressed(self):
        beside = np.array([[0, 0, 10, 10, 0.9], [8, 0, 18, 10, 0.8]], np.float32)
        assert len(suppress(beside, 0.45)) == len(merge(beside, 0.4)) == 2


class FakeRequest:
    """Answers with the pixels it was given, and knows whether two calls ever met in it."""

    def __init__(self) -> None:
        self._busy = threading.Lock()

    def infer(self, inputs, **shared):
        assert self._busy.acquire(blocking=False)
        self.output_tensors = [SimpleNamespace(data=inputs[0] + 1)]
        self._busy.release()


class TestRequests:
    def test_calls_one_after_another_need_one_compiled_network(self):
        made = []
        requests = _Requests(lambda: made.append(FakeRequest()) or made[-1], 4)
        for value in range(20):
            assert requests.infer(np.array([value]))[0] == value + 1
        assert len(made) == 1

    @pytest.mark.parametrize("most", [1, 3])
    def test_many_threads_never_share_a_network_and_make_no_more_than_allowed(self, most):
        made = []
        requests = _Requests(lambda: made.append(FakeRequest()) or made[-1], most)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda value: requests.infer(np.array([value]))[0].item(), range(2000)))
        assert answers == list(range(1, 2001))
        assert 1 <= len(made) <= most

    def test_a_second_network_is_made_once_calls_waited_longer_than_that_takes(self):
        entered, leave = threading.Event(), threading.Event()
        made = []

        class Held(FakeRequest):
            def infer(self, inputs, **shared):
                super().infer(inputs, **shared)
                if inputs[0] == 0:
                    entered.set()
                    leave.wait()

        requests = _Requests(lambda: made.append(Held()) or made[-1], 2)
        requests.infer(np.array([5]))
        with ThreadPoolExecutor(2) as pool:
            held = pool.submit(requests.infer, np.array([0]))
            entered.wait()
            assert len(made) == 1
            requests._waited = math.inf
            assert requests.infer(np.array([1]))[0] == 2
            leave.set()
            held.result()
        assert len(made) == 2

    @pytest.mark.parametrize(("every", "networks"), [(100.0, 1), (10.0, 2)])
    def test_waits_that_are_a_small_share_of_the_time_never_add_up_to_a_second_network(
        self, monkeypatch, every, networks
    ):
        clock = SimpleNamespace(now=1000.0)
        monkeypatch.setattr(runtimes, "time", SimpleNamespace(perf_counter=lambda: clock.now))
        made = []

        def compile_network():
            clock.now += 2.0
            made.append(FakeRequest())
            return made[-1]

        requests = _Requests(compile_network, 2)
        requests.infer(np.array([1]))

        class Busy(contextlib.nullcontext):
            """The network comes back half a second after a call began to wait for it."""

            def wait(self):
                clock.now += 0.5
                requests._idle.append(made[0])

            def notify(self):
                """Nobody else waits."""

        requests._returned = Busy()
        for _ in range(100):
            clock.now += every
            requests._idle.clear()
            requests.infer(np.array([1]))
        assert len(made) == networks

    def test_what_could_not_be_compiled_is_tried_again_by_the_next_call(self):
        outcomes = iter([RuntimeError("no memory"), FakeRequest()])

        def compile_network():
            outcome = next(outcomes)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        requests = _Requests(compile_network, 1)
        with pytest.raises(RuntimeError, match="no memory"):
            requests.infer(np.array([1]))
        assert requests.infer(np.array([1]))[0] == 2


def test_one_detector_serves_several_threads():
    detector = CenterFaceDetector(BALANCED, concurrency=2)
    pictures = [pixels_of(name) for name in (*WITH_FACES, *WITHOUT_FACES)]
    alone = [detector.detect(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector.detect, itertools.chain(*[pictures] * 3)))
    assert together == alone * 3
