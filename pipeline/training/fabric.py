"""Lightning Fabric, without a library that it would import in vain."""

from pipeline.runtime.spared import spared

# Fabric asks torchmetrics for its version, for which all of it is imported, with scipy.stats and
# matplotlib: a third of the time that a training needs to start
with spared("torchmetrics"):
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

__all__ = ["DDPStrategy", "Fabric", "LightningEnvironment"]
