import numpy as np

from umt_jax.plots import loss_curves


def metrics(domains, num_rows=5):
    return [
        {"step": 10 * i, "seconds": 1.0 * i, "train/classifier_accuracy": 0.5}
        | {f"train/reconstruction/{domain}": 5.0 / i + k for k, domain in enumerate(domains)}
        | {f"eval/reconstruction/{domain}": 6.0 / i + k for k, domain in enumerate(domains)}
        for i in range(1, num_rows + 1)
    ]


def test_loss_curves_hold_a_line_for_each_domain_and_the_chance_level():
    domains = [f"Domain_{i}" for i in range(6)]
    figure = loss_curves.loss_curves(metrics(domains), domains)
    train, validation, classifier = figure.axes
    for axes, first in ((train, 5.0), (validation, 6.0)):
        assert [line.get_label() for line in axes.lines] == domains
        np.testing.assert_allclose(axes.lines[2].get_ydata(), first / np.arange(1, 6) + 2)
        looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
        assert len(looks) == len(domains)
    np.testing.assert_allclose(classifier.lines[-1].get_ydata(), 1 / 6)
    assert "chance 1/6" in [text.get_text() for text in classifier.texts]


def test_labels_stand_at_the_ends_of_their_lines_and_apart():
    domains = ["Low", "High"]
    figure = loss_curves.loss_curves(metrics(domains), domains)
    for axes, last in zip(figure.axes[:2], (1.0, 1.2), strict=True):
        heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
        low, high = axes.get_ylim()
        np.testing.assert_allclose(heights["Low"], (last - low) / (high - low))
        assert heights["High"] - heights["Low"] > 0.1


def test_loss_curves_without_domains_show_the_mean():
    rows = [{"step": 1, "train/reconstruction": 5.0}, {"step": 2, "train/reconstruction": 4.0}]
    figure = loss_curves.loss_curves(rows, ["A", "B"])
    assert [line.get_label() for line in figure.axes[0].lines] == ["all domains"]
    assert "nothing recorded yet" in [text.get_text() for text in figure.axes[1].texts]
