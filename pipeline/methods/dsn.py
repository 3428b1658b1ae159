"""DSN, domain separation networks: what the domains share apart from what is private to each.

K. Bousmalis, G. Trigeorgis, N. Silberman, D. Krishnan, D. Erhan, Domain Separation Networks,
NeurIPS 2016 (feature space).

Notation: domain d with images x_d, shared code h_c = E_c(x), private code h_p = E_p^d(x), decoder
D; the four losses of equation 1::

    L = L_res / span + alpha L_recon + beta L_difference + gamma L_similarity
    L_recon = sum over d of si_mse(D(h_c + h_p), x_d) / span^2                  equations 3, 4
    L_difference = sum over d of |H_c^T H_p|_F^2                                equation 5
    L_similarity: DANN's cross-entropy of the domain given h_c, its gradient
                  reversed on the way to E_c, gamma times DANN's rise           equation 6

si_mse is blind to a change of all pixels by one value. Divided by the span, white minus black,
losses of pixels weigh the same in every range of values. As the authors do in their code, codes are
centred and scaled to length 1 before L_difference.

Fitted to restoration: E_c is the restorer up to its bottleneck, the rest of it stands for the task
classifier; what its skip connections carry past the bottleneck is in no code. A code is a map, so
the rows of H are the places of one image, and L_difference is divided by the square of their
number: between 0 and 1, and a mean over images. Codes are centred over these rows, where the
authors centre over the batch, so that shares of a batch add up: what a code is on an image's mean
costs L_difference nothing, and L_similarity alone keeps the domain out of a shared mean. The
authors' code switches all three losses on after some steps; here the restorer comes pretrained, and
the reversal rises. The default weights 0.1, 0.05 and 0.01 are not taken from a classification loss
near 1: at the demo's pretrained restorer the three losses pull at the encoder's weights 0.03, 0.6
and 0.08 times as hard as L_res (``benchmarks/README.md``, forces). With 3, 0.1 and 0.1, each as
hard as L_res, it restores worse there (``docs/trials.md``, trial 11).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.methods import DsnSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.adversarial import (
    domain_loss,
    pairwise_squared_error,
    reverse_gradient,
    rising,
)
from pipeline.methods.bottleneck import Bottleneck
from pipeline.methods.losses import charbonnier
from pipeline.methods.method import Method, Progress
from pipeline.models.adversarial import DomainClassifier, PrivateEncoder, SharedDecoder


class Dsn(Method):
    """Restorer, two private encoders, shared decoder, domain classifier."""

    settings: DsnSettings

    def __init__(self, restorer: nn.Module, settings: DsnSettings) -> None:
        super().__init__(restorer, settings)
        self.bottleneck = Bottleneck(restorer)
        channels, factor = self.bottleneck.channels, self.bottleneck.factor
        self.synthetic_encoder = PrivateEncoder(settings.channels, channels, factor)
        self.real_encoder = PrivateEncoder(settings.channels, channels, factor)
        self.decoder = SharedDecoder(channels, settings.channels, factor)
        self.classifier = DomainClassifier(channels, settings.channels)

    def learning_rate_factors(self) -> dict[str, float]:
        """Return those of the four networks beside the restorer, all alike."""
        names = ("synthetic_encoder", "real_encoder", "decoder", "classifier")
        return dict.fromkeys(names, self.settings.learning_rate_factor)

    def forward(self, batch: Batch, draws: None, progress: Progress) -> dict[str, Tensor]:
        """Return the four losses and their weighted sum, see the top of this file."""
        settings = self.settings
        restored, synthetic = self.bottleneck.read(self.restorer, batch.synthetic)
        real = self.bottleneck.features(self.restorer, batch.real)
        restoration = charbonnier(restored, batch.clean)

        shared = torch.cat([synthetic, real])
        private = torch.cat(
            [self.synthetic_encoder(batch.synthetic), self.real_encoder(batch.real)]
        )
        images = torch.cat([batch.synthetic, batch.real])
        # twice the mean over both domains is the sum of their means
        rebuilt = self.decoder(shared + private)
        reconstruction = 2 * pairwise_squared_error(rebuilt, images) / batch.span**2
        difference = 2 * correlation(shared, private)
        reversal = settings.similarity_weight * rising(progress.fraction)
        judged = self.classifier(reverse_gradient(shared, reversal))
        similarity = domain_loss(*judged.chunk(2))
        total = (
            restoration / batch.span
            + settings.reconstruction_weight * reconstruction
            + settings.difference_weight * difference
            + similarity
        )
        return {
            "total": total,
            "restoration": restoration,
            "reconstruction": reconstruction,
            "difference": difference,
            "domain": similarity,
        }


def correlation(shared: Tensor, private: Tensor) -> Tensor:
    """Return |H_c^T H_p|_F^2 / places^2 of each image, mean over the images: 0 if uncorrelated.

    Args:
        shared: H_c, (batch, channels, height, width); a row for each place.
        private: H_p, the same shape.
    """
    rows = []
    for code in (shared.float(), private.float()):
        flat = code.flatten(2)
        rows.append(F.normalize(flat - flat.mean(2, keepdim=True), dim=1))
    with torch.autocast(shared.device.type, enabled=False):  # a sum over many small products
        product = rows[0] @ rows[1].mT / shared[0, 0].numel()
    return product.square().sum((1, 2)).mean()
