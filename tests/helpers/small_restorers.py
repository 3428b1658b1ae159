"""Every restorer in a size for tests, by its kind."""

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"levels": 2, "channels": 4},
    "dncnn": {"layers": 4, "channels": 8},
    "nafnet": {"channels": 4, "encoder_blocks": [1, 1], "middle_blocks": 1,
               "decoder_blocks": [1, 1]},
    "swinir": {"channels": 8, "blocks": [2], "heads": [2], "window": 4, "mlp_ratio": 2},
    "uformer": {"channels": 4, "blocks": [1] * 9, "window": 2},
    "restormer": {"channels": 8, "blocks": [1] * 4, "heads": [1, 1, 2, 2],
                  "refinement_blocks": 1, "expansion": 2.66},
}  # fmt: skip
