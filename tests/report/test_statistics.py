"""Statistics against arithmetic by hand, scipy and simulation."""

import math
import pickle

import numpy as np
import pytest
from scipy.stats import norm, wilcoxon

from pipeline.report.statistics import bootstrap_interval, holm, mean_and_std, paired_difference


def rng(seed: int = 0) -> np.random.Generator:
    """Return a fixed generator."""
    return np.random.default_rng(seed)


def width(interval: tuple[float, float] | None) -> float:
    """Return high - low."""
    assert interval is not None
    return interval[1] - interval[0]


def test_mean_and_std_by_hand() -> None:
    # deviations -3, 0, 3: variance (9 + 0 + 9) / 2
    assert mean_and_std([27.0, 30.0, 33.0]) == (30.0, 3.0)


def test_one_value_has_no_spread() -> None:
    assert mean_and_std([31.5]) == (31.5, None)


def test_interval_of_two_images_by_hand() -> None:
    # the mean of two draws from {0, 1} is 0, 1/2, 1 with probability 1/4, 1/2, 1/4
    assert bootstrap_interval([0, 1], 2000, rng(), confidence=0.4) == (0.5, 0.5)
    assert bootstrap_interval([0, 1], 2000, rng(), confidence=0.6) == (0.0, 1.0)


def test_interval_of_unequal_scenes_by_hand() -> None:
    # two draws from a scene of (0, 0, 0) and one of (1): the mean over images is 0, 1/4, 1 with
    # probability 1/4, 1/2, 1/4; the mean of scene means would be 1/2 in the middle
    groups = ["a", "a", "b", "a"]
    assert bootstrap_interval([0, 0, 1, 0], 2000, rng(), 0.4, groups) == (0.25, 0.25)
    assert bootstrap_interval([0, 0, 1, 0], 2000, rng(), 0.6, groups) == (0.0, 1.0)


def test_interval_approaches_the_normal_one() -> None:
    values = rng(3).normal(30, 2, size=400)
    half = norm.ppf(0.975) * values.std() / math.sqrt(400)
    expected = values.mean() - half, values.mean() + half
    found = bootstrap_interval(values, 5000, rng())
    assert found == pytest.approx(expected, abs=0.08 * half)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draws = rng(4)
    trials = 400
    covered = 0
    for _ in range(trials):
        low, high = bootstrap_interval(draws.normal(30, 2, size=40), 300, draws) or (0, 0)
        covered += low <= 30 <= high
    # 95 % nominal, a little less for 40 images; three standard errors of 400 trials are 3 %
    assert 0.90 < covered / trials < 0.98


def test_confidence_sets_the_width() -> None:
    values = rng(5).normal(size=200)
    narrow = width(bootstrap_interval(values, 4000, rng(), confidence=0.5))
    wide = width(bootstrap_interval(values, 4000, rng(), confidence=0.95))
    assert wide / narrow == pytest.approx(norm.ppf(0.975) / norm.ppf(0.75), rel=0.1)


def test_same_generator_same_interval() -> None:
    values = rng(6).normal(size=30)
    assert bootstrap_interval(values, 700, rng(1)) == bootstrap_interval(values, 700, rng(1))
    assert bootstrap_interval(values, 700, rng(1)) != bootstrap_interval(values, 700, rng(2))


def test_global_random_state_plays_no_part() -> None:
    values = rng(6).normal(size=30)
    before = pickle.dumps(np.random.get_state())
    bootstrap_interval(values, 700, rng(1))
    paired_difference(values, values + 1, 700, rng(1))
    assert pickle.dumps(np.random.get_state()) == before


def test_scenes_are_the_independent_units() -> None:
    # 8 scenes of 10 equal blocks: the blocks add nothing, so as if each scene were one image
    scene_values = rng(7).normal(30, 2, size=8)
    values = np.repeat(scene_values, 10)
    groups = [f"scene{i}" for i in range(8) for _ in range(10)]
    clustered = bootstrap_interval(values, 3000, rng(), groups=groups)
    assert clustered == pytest.approx(bootstrap_interval(scene_values, 3000, rng()), abs=1e-9)
    # naively, 80 values: the interval would be sqrt(10) times too narrow
    naive = bootstrap_interval(values, 3000, rng())
    assert width(clustered) / width(naive) == pytest.approx(math.sqrt(10), rel=0.1)


def test_order_of_images_and_names_of_scenes_do_not_matter() -> None:
    values = rng(8).normal(size=60)
    groups = [f"scene{i % 6}" for i in range(60)]
    order = rng(9).permutation(60)
    expected = bootstrap_interval(values, 500, rng(), groups=groups)
    found = bootstrap_interval(values[order], 500, rng(), groups=[groups[i] for i in order])
    assert found == pytest.approx(expected, abs=1e-12)
    alone = [f"photograph{i:02}" for i in range(60)]
    assert bootstrap_interval(values, 500, rng(), groups=alone) == bootstrap_interval(
        values, 500, rng()
    )


def test_one_image_or_scene_has_no_interval() -> None:
    assert bootstrap_interval([30.0], 100, rng()) is None
    assert bootstrap_interval([30.0, 31.0], 100, rng(), groups=["a", "a"]) is None
    found = paired_difference([30.0, 31.0], [29.0, 29.0], 100, rng(), groups=["a", "a"])
    assert (found.mean, found.low, found.high, found.p_value) == (1.5, None, None, None)
    assert (found.images, found.scenes) == (2, 1)


def test_paired_difference_by_hand() -> None:
    # ranks 1 to 7, only rank 2 negative; rank sums of 2 or less: {}, {1}, {2}, so 2 x 3 / 2^7
    differences = np.array([1, -2, 3, 4, 5, 6, 7]) / 8
    b = np.arange(7) + 25.0
    found = paired_difference(b + differences, b, 500, rng())
    assert found.mean == 3 / 7
    assert found.p_value == pytest.approx(6 / 128, abs=1e-12)
    assert (found.low, found.high) == bootstrap_interval(differences, 500, rng())
    assert (found.images, found.scenes) == (7, None)


def test_paired_difference_changes_sign_with_its_arguments() -> None:
    a, b = rng(10).normal(30, 2, size=(2, 25))
    one, other = paired_difference(a, b, 2000, rng()), paired_difference(b, a, 2000, rng())
    assert one.mean == -other.mean
    assert one.p_value == other.p_value
    assert one.low is not None
    assert other.high is not None
    assert one.low == pytest.approx(-other.high, abs=1e-9)


def test_pairing_removes_what_the_images_share() -> None:
    b = rng(11).normal(30, 5, size=50)
    a = b + rng(12).normal(0.2, 0.1, size=50)
    found = paired_difference(a, b, 1000, rng())
    assert found.low is not None
    assert found.low > 0.1
    expected = wilcoxon(a, b).pvalue
    assert expected < 1e-6
    assert found.p_value == pytest.approx(expected)


def test_many_pairs_agree_with_scipy() -> None:
    a, b = rng(13).normal(30, 2, size=(2, 200))
    found = paired_difference(a, b, 10, rng())
    assert found.p_value == pytest.approx(wilcoxon(a, b, method="asymptotic").pvalue)


def test_p_value_needs_six_pairs_that_differ() -> None:
    b = np.zeros(6)
    six = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert paired_difference(six, b, 10, rng()).p_value == pytest.approx(2 / 64)
    assert paired_difference(six[:5], b[:5], 10, rng()).p_value is None
    one_equal = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 0.0])
    assert paired_difference(one_equal, b, 10, rng()).p_value is None
    seven = np.append(six, 0.0)
    assert paired_difference(seven, np.zeros(7), 10, rng()).p_value == pytest.approx(2 / 64)


@pytest.mark.filterwarnings("error")
def test_methods_that_score_the_same() -> None:
    scores = rng(14).normal(30, 2, size=20)
    found = paired_difference(scores, scores, 100, rng())
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, None)


def test_p_value_counts_scenes() -> None:
    scene_differences = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    differences = np.repeat(scene_differences, 4) + np.tile([-0.5, 0.5, -0.25, 0.25], 6)
    groups = np.repeat(list("abcdef"), 4).tolist()
    found = paired_difference(differences, np.zeros(24), 400, rng(), groups=groups)
    assert found.p_value == pytest.approx(2 / 64)
    assert (found.images, found.scenes) == (24, 6)
    naive = paired_difference(differences, np.zeros(24), 400, rng())
    assert naive.p_value is not None
    assert naive.p_value < 1e-4
    assert (found.low, found.high) == bootstrap_interval(differences, 400, rng(), groups=groups)


def test_p_value_takes_the_mean_of_a_scene_whatever_its_size() -> None:
    # the one scene where b is better has ten images; it has rank 2 all the same
    scene_differences = [1.0, -2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    sizes = [1, 10, 1, 1, 1, 1, 1]
    differences = np.repeat(scene_differences, sizes)
    groups = np.repeat(list("abcdefg"), sizes).tolist()
    found = paired_difference(differences, np.zeros(16), 10, rng(), groups=groups)
    assert found.p_value == pytest.approx(6 / 128, abs=1e-12)
    assert found.mean == (26 - 20) / 16


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], 3.0])
def test_no_list_of_numbers(values: object) -> None:
    with pytest.raises(ValueError, match="expected a non-empty list"):
        mean_and_std(values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a non-empty list"):
        bootstrap_interval(values, 10, rng())  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite(value: float) -> None:
    values = [30.0, value, 31.0]
    for call in (
        lambda: mean_and_std(values),
        lambda: bootstrap_interval(values, 10, rng()),
        lambda: paired_difference([1.0, 2.0, 3.0], values, 10, rng()),
    ):
        with pytest.raises(ValueError, match=r"\[1\] is (nan|inf) \(1 of 3 not finite\)"):
            call()


def test_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="a has 2 scores, b has 1"):
        paired_difference([1.0, 2.0], [1.0], 10, rng())
    with pytest.raises(ValueError, match="1 groups for 2 values"):
        bootstrap_interval([1.0, 2.0], 10, rng(), groups=["a"])


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        bootstrap_interval([1.0, 2.0], 10, rng(), confidence=confidence)


def test_too_few_samples() -> None:
    with pytest.raises(ValueError, match="samples is 1"):
        bootstrap_interval([1.0, 2.0], 1, rng())


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04, the last not below
    # the one before it
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_ends_at_one_and_leaves_a_single_test_alone() -> None:
    assert holm([0.5, 0.6, 1.0]).tolist() == [1.0, 1.0, 1.0]
    assert holm([0.03]).tolist() == [0.03]
    # equal ones share the largest factor
    assert holm([0.02, 0.02]).tolist() == [0.04, 0.04]


@pytest.mark.parametrize("wrong", [[], [0.1, math.nan], [1.5], [-0.1]])
def test_holm_refuses_what_is_no_p_value(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="p_values"):
        holm(wrong)
