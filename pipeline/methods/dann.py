"""DANN, domain-adversarial training: features that do not tell the domain (feature space).

Y. Ganin, V. Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML 2015; Y. Ganin et
al., Domain-Adversarial Training of Neural Networks, JMLR 2016.

Notation: synthetic pair (x_s, y_s), real image x_r, features f(x), domain classifier c, restored
synthetic image y^_s::

    L_d = -(E log c(f(x_s)) + E log(1 - c(f(x_r)))) / 2        the classifier minimizes it,
    L = L_res(y^_s, y_s) / span - lambda L_d                   the restorer L (equation 9, JMLR)
    lambda = weight (2 / (1 + exp(-10 p)) - 1)                 p: part of the training done

Divided by the span, white minus black, a loss of pixels weighs the same in every range of values.
Both happen in one pass: f(x) goes to the classifier through a layer that leaves it as it is and
turns its gradient round (*gradient reversal*).

Fitted to restoration: the label predictor's loss becomes L_res. The features are those of the
restorer's bottleneck, where a place stands for the largest part of the image; what skip connections
carry past it is not aligned. The classifier judges each place, since a degradation is everywhere
and scenes differ anyway; its own gradient is never weakened by lambda, as in the paper. The default
weight is 0.01 where the paper's is 1: at the demo's pretrained restorer the gradient of L_d by the
encoder's weights is nine times that of L_res (``benchmarks/README.md``, forces), so that the
default pulls a tenth as hard at the full reversal. As hard a pull, 0.1, restores worse there
(``docs/trials.md``, trial 11). The classifier's Adam has the restorer's betas: beta1 0.9 is
the momentum that the paper trains with.
"""

import torch
from torch import Tensor, nn

from pipeline.config.methods import DannSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.adversarial import domain_loss, reverse_gradient, rising
from pipeline.methods.bottleneck import Bottleneck
from pipeline.methods.losses import charbonnier
from pipeline.methods.method import Method, Progress
from pipeline.models.adversarial import DomainClassifier


class Dann(Method):
    """Restorer and domain classifier."""

    settings: DannSettings

    def __init__(self, restorer: nn.Module, settings: DannSettings) -> None:
        super().__init__(restorer, settings)
        self.bottleneck = Bottleneck(restorer)
        self.classifier = DomainClassifier(self.bottleneck.channels, settings.channels)

    def learning_rate_factors(self) -> dict[str, float]:
        """Return the classifier's."""
        return {"classifier": self.settings.learning_rate_factor}

    def forward(self, batch: Batch, draws: None, progress: Progress) -> dict[str, Tensor]:
        """Return L_res and L_d, whose sum has the gradients above, see the top of this file."""
        restored, synthetic = self.bottleneck.read(self.restorer, batch.synthetic)
        real = self.bottleneck.features(self.restorer, batch.real)
        restoration = charbonnier(restored, batch.clean)
        strength = self.settings.weight * rising(progress.fraction)
        features = reverse_gradient(torch.cat([synthetic, real]), strength)
        domain = domain_loss(*self.classifier(features).chunk(2))
        total = restoration / batch.span + domain
        return {"total": total, "restoration": restoration, "domain": domain}
