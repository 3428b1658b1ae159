"""CyCADA, cycle-consistent adversarial domain adaptation (pixel and feature space).

J. Hoffman et al., CyCADA: Cycle-Consistent Adversarial Domain Adaptation, ICML 2018, after J.-Y.
Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV
2017.

Notation: synthetic pair (x_s, y_s), real image x_r, generators R (synthetic to real) and S (real
to synthetic), discriminators D_r, D_s, features f of the restorer, domain classifier c; the sum of
equation 5::

    L_gan: R(x_s) shall pass for real before D_r, S(x_r) for synthetic before D_s   equation 2
    L_cyc = (mean |S(R(x_s)) - x_s| + mean |R(S(x_r)) - x_r|) / span                equation 3
    L_idt = (mean |R(x_r) - x_r| + mean |S(x_s) - x_s|) / span
    L_feat: DANN's cross-entropy on f(R(x_s)), f(x_r), its gradient reversed
    L_task = (L_res(x_s) + L_res(R(x_s))) / (2 span)
    L = L_task + adversarial L_gan + cycle L_cyc + identity L_idt + L_feat

Divided by the span, white minus black, losses of pixels weigh the same in every range of values.

Fitted to restoration: the task loss becomes L_res, with y_s as the truth of R(x_s). It trains the
restorer alone, as in the paper's stages (by its equation 6 R would learn from it too), here all at
once so that every method makes the same updates. x_s keeps its half of it, where the paper's has
R(x_s) alone, so that the restorer does not depend on a generator that is still learning. The
semantic consistency (equation 4) asks a fixed classifier whether the content was kept; its place
takes the identity term L_idt (Zhu et al., section 5.2), and generators that only add a residual.
L_feat reverses a gradient as DANN does, at the same place, where the paper inverts labels. The
weights 1, 10 and 5 are those of Zhu et al., whose L_gan is a squared error and whose images span 2;
here it is a cross-entropy, as in CyCADA's equation 2, and they were not chosen anew. The reversed
gradient has DANN's weight, 0.01, and its rise. beta1 of Adam is 0.5 for all networks but the
restorer, as in the code of Zhu et al.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.methods import CyCadaSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.adversarial import (
    domain_loss,
    fooled,
    frozen,
    reverse_gradient,
    rising,
)
from pipeline.methods.bottleneck import Bottleneck
from pipeline.methods.losses import charbonnier
from pipeline.methods.method import Method, Progress
from pipeline.models.adversarial import Discriminator, DomainClassifier, Generator


class CyCada(Method):
    """Restorer, two generators, two discriminators, domain classifier."""

    settings: CyCadaSettings

    def __init__(self, restorer: nn.Module, settings: CyCadaSettings) -> None:
        super().__init__(restorer, settings)
        self.bottleneck = Bottleneck(restorer)
        self.to_real = Generator(settings.channels, settings.blocks)
        self.to_synthetic = Generator(settings.channels, settings.blocks)
        self.real_discriminator = Discriminator(settings.channels)
        self.synthetic_discriminator = Discriminator(settings.channels)
        self.classifier = DomainClassifier(self.bottleneck.channels, settings.channels)

    def learning_rate_factors(self) -> dict[str, float]:
        """Return those of the five networks beside the restorer, all alike."""
        names = [name for name, _ in self.named_children() if name != "restorer"]
        return dict.fromkeys(names, self.settings.learning_rate_factor)

    def momentum(self) -> float:
        """Return beta1 of the networks that play against each other."""
        return self.settings.momentum

    def forward(self, batch: Batch, draws: None, progress: Progress) -> dict[str, Tensor]:
        """Return the losses and their weighted sum, see the top of this file."""
        settings = self.settings
        synthetic, real = batch.synthetic, batch.real
        made_real, kept_real = self.to_real(torch.cat([synthetic, real])).chunk(2)
        made_synthetic, kept_synthetic = self.to_synthetic(torch.cat([real, synthetic])).chunk(2)
        cycled = self.to_synthetic(made_real), self.to_real(made_synthetic)
        cycle = (F.l1_loss(cycled[0], synthetic) + F.l1_loss(cycled[1], real)) / batch.span
        kept = F.l1_loss(kept_real, real) + F.l1_loss(kept_synthetic, synthetic)
        identity = kept / batch.span

        domain, deception = torch.zeros_like(cycle), torch.zeros_like(cycle)
        for discriminator, taken, made in (
            (self.real_discriminator, real, made_real),
            (self.synthetic_discriminator, synthetic, made_synthetic),
        ):
            judged = discriminator(torch.cat([taken, made.detach()]))
            domain = domain + domain_loss(*judged.chunk(2))
            deception = deception + fooled(frozen(discriminator, made))

        restoration = charbonnier(self.restorer(synthetic), batch.clean)
        restored, features = self.bottleneck.read(self.restorer, made_real.detach())
        restoration_made = charbonnier(restored, batch.clean)
        real_features = self.bottleneck.features(self.restorer, real)
        reversal = settings.feature_weight * rising(progress.fraction)
        judged = self.classifier(reverse_gradient(torch.cat([features, real_features]), reversal))
        feature_domain = domain_loss(*judged.chunk(2))
        total = (
            (restoration + restoration_made) / 2 / batch.span
            + settings.adversarial_weight * deception
            + settings.cycle_weight * cycle
            + settings.identity_weight * identity
            + domain
            + feature_domain
        )
        return {
            "total": total,
            "restoration": restoration,
            "restoration_made": restoration_made,
            "domain": domain / 2,
            "feature_domain": feature_domain,
            "deception": deception / 2,
            "cycle": cycle,
            "identity": identity,
        }
