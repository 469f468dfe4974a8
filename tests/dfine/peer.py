"""The D-FINE of `transformers` as its sizes were published: the oracle of tests, and the peer of benchmarks."""

from typing import Any

import torch
from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

NANO_BACKBONE = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "hidden_sizes": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
    "out_indices": [3, 4],
}
NANO = {
    "encoder_hidden_dim": 128,
    "encoder_in_channels": [512, 1024],
    "feat_strides": [16, 32],
    "encoder_ffn_dim": 512,
    "encode_proj_layers": [1],
    "hidden_expansion": 0.34,
    "depth_mult": 0.5,
    "d_model": 128,
    "decoder_in_channels": [128, 128],
    "decoder_ffn_dim": 512,
    "num_feature_levels": 2,
    "decoder_n_points": [6, 6],
    "decoder_layers": 3,
}
SMALL_BACKBONE = NANO_BACKBONE | {"out_indices": [2, 3, 4]}
SMALL = {
    "encoder_in_channels": [256, 512, 1024],
    "hidden_expansion": 0.5,
    "depth_mult": 0.34,
    "decoder_n_points": [3, 6, 3],
    "decoder_layers": 3,
}
MEDIUM_BACKBONE = {
    "stem_channels": [3, 24, 32],
    "stage_in_channels": [32, 96, 384, 768],
    "stage_mid_channels": [32, 64, 128, 256],
    "stage_out_channels": [96, 384, 768, 1536],
    "hidden_sizes": [96, 384, 768, 1536],
    "stage_num_blocks": [1, 1, 3, 1],
    "stage_numb_of_layers": [4, 4, 4, 4],
    "use_learnable_affine_block": True,
    "out_indices": [2, 3, 4],
}
MEDIUM = {
    "encoder_in_channels": [384, 768, 1536],
    "hidden_expansion": 1.0,
    "depth_mult": 0.67,
    "decoder_n_points": [3, 6, 3],
    "decoder_layers": 4,
}
LARGE_BACKBONE = {"out_indices": [2, 3, 4]}
LARGE = {"decoder_n_points": [3, 6, 3], "decoder_layers": 6}
CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "n": (NANO_BACKBONE, NANO),
    "s": (SMALL_BACKBONE, SMALL),
    "m": (MEDIUM_BACKBONE, MEDIUM),
    "l": (LARGE_BACKBONE, LARGE),
}


def oracle(size: str, classes: int, **changes: object) -> DFineForObjectDetection:
    """With random weights, away from the start, where heads are zero and norms do nothing. changes: of the config."""
    backbone, rest = CONFIGS[size]
    torch.manual_seed(0)
    config = DFineConfig(
        backbone_config=HGNetV2Config(**backbone), num_labels=classes, eval_size=None, **rest, **changes
    )
    model = DFineForObjectDetection(config).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and not name.endswith(("up", "reg_scale", "num_points_scale")):
                value.add_(torch.rand_like(value) * 0.2 * (value.abs().mean() + 0.02))
    return model
