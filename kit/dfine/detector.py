"""D-FINE (arXiv 2410.13842): backbone, hybrid encoder, decoder; five sizes; the published names of the weights."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from kit.dfine.backbone import hgnetv2
from kit.dfine.decoder import Decoder, Output, TrainOutput
from kit.dfine.denoising import Denoising
from kit.dfine.encoder import HybridEncoder

STRIDE = 32  # height and width of an input are multiples of it


@dataclass(frozen=True)
class Size:
    """One published size. stages count from 0; points: samples per level; inner: width inside the fusion blocks."""

    name: str
    backbone: str
    stages: tuple[int, ...]
    channels: tuple[int, ...]
    encoder_channels: int
    encoder_ffn: int
    inner: int
    depth: int
    decoder_channels: int
    decoder_ffn: int
    layers: int
    points: tuple[int, ...]
    reg_scale: float = 4.0
    queries: int = 300
    freeze_stem: bool = False
    freeze_norm: bool = False


SIZES = {
    "n": Size("n", "hgnetv2_b0", (2, 3), (512, 1024), 128, 512, 21, 2, 128, 512, 3, (6, 6)),
    "s": Size("s", "hgnetv2_b0", (1, 2, 3), (256, 512, 1024), 256, 1024, 64, 1, 256, 1024, 3, (3, 6, 3)),
    "m": Size("m", "hgnetv2_b2", (1, 2, 3), (384, 768, 1536), 256, 1024, 128, 2, 256, 1024, 4, (3, 6, 3)),
    "l": Size(
        "l", "hgnetv2_b4", (1, 2, 3), (512, 1024, 2048), 256, 1024, 128, 3, 256, 1024, 6, (3, 6, 3),
        freeze_stem=True, freeze_norm=True,
    ),
    "x": Size(
        "x", "hgnetv2_b5", (1, 2, 3), (512, 1024, 2048), 384, 2048, 192, 3, 256, 1024, 6, (3, 6, 3),
        reg_scale=8.0, freeze_stem=True, freeze_norm=True,
    ),
}  # fmt: skip


class Detector(nn.Module):
    """Images to boxes without anchors to tune and without NMS.

    model: one of SIZES, or a Size of your own; channels: of the image, 1, 3 or 4. Weights are random; see load_weights.
    """

    def __init__(self, model: str | Size, num_classes: int, channels: int = 3):
        super().__init__()
        size = published_size(model)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.size, self.num_classes, self.channels = size, num_classes, channels
        self.backbone = hgnetv2(size.backbone, size.stages, channels, size.freeze_stem, size.freeze_norm)
        self.encoder = HybridEncoder(
            list(size.channels), size.encoder_channels, size.encoder_ffn, size.inner, size.depth
        )
        self.decoder = Decoder(
            size.encoder_channels,
            size.decoder_channels,
            num_classes,
            ffn=size.decoder_ffn,
            layers=size.layers,
            points=size.points,
            reg_scale=size.reg_scale,
            queries=size.queries,
        )

    def forward(self, images: Tensor, noise: Denoising | None = None) -> Output | TrainOutput:
        """images: (B, channels, H, W) in [0, 1] -> Output in eval mode, TrainOutput (for `losses`) in training mode."""
        check_images(images, self.channels)
        return self.decoder(self.encoder(self.backbone(images)), noise)


def published_size(model: str | Size) -> Size:
    if isinstance(model, Size):
        return model
    if model not in SIZES:
        raise ValueError(f"model must be one of {', '.join(SIZES)} or a Size, got {model!r}")
    return SIZES[model]


def unfrozen(model: str | Size) -> Size:
    """The size with nothing frozen: for a start from random weights, which are not worth keeping."""
    return replace(published_size(model), freeze_stem=False, freeze_norm=False)


def check_images(images: Tensor, channels: int) -> None:
    if images.ndim != 4 or images.shape[1] != channels or not images.is_floating_point():
        raise ValueError(
            f"images must be float (B, {channels}, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}"
        )
    height, width = images.shape[2:]
    if height % STRIDE or width % STRIDE:
        raise ValueError(f"height and width must be multiples of {STRIDE}, got {height} x {width}; resize the images")


# The published names of the weights, and ours: (published, ours), each a part of a name; the first that fits is used.
# Tested to be one to one.
PUBLISHED_NAMES = (
    (r"^backbone\.stages\.(\d+)\.", r"backbone.stages_\1."),
    (r"^encoder\.input_proj\.", "encoder.project."),
    (r"^encoder\.encoder\.0\.layers\.0\.self_attn\.in_proj_", "encoder.attention.attention.qkv."),
    (r"^encoder\.encoder\.0\.layers\.0\.self_attn\.out_proj\.", "encoder.attention.attention.out."),
    (r"^encoder\.encoder\.0\.layers\.0\.linear1\.", "encoder.attention.widen."),
    (r"^encoder\.encoder\.0\.layers\.0\.linear2\.", "encoder.attention.narrow."),
    (r"^encoder\.encoder\.0\.layers\.0\.", "encoder.attention."),
    (r"^encoder\.lateral_convs\.", "encoder.lateral."),
    (r"^encoder\.downsample_convs\.(\d+)\.0\.cv1\.", r"encoder.down.\1.0."),
    (r"^encoder\.downsample_convs\.(\d+)\.0\.cv2\.", r"encoder.down.\1.1."),
    (r"^encoder\.fpn_blocks\.", "encoder.top_down."),
    (r"^encoder\.pan_blocks\.", "encoder.bottom_up."),
    (r"(top_down|bottom_up)\.(\d+)\.cv1\.", r"\1.\2.enter."),
    (r"(top_down|bottom_up)\.(\d+)\.cv2\.", r"\1.\2.first."),
    (r"(top_down|bottom_up)\.(\d+)\.cv3\.", r"\1.\2.second."),
    (r"(top_down|bottom_up)\.(\d+)\.cv4\.", r"\1.\2.leave."),
    (r"\.(first|second)\.0\.conv1\.", r".\1.0.deep."),
    (r"\.(first|second)\.0\.conv2\.", r".\1.0.shallow."),
    (r"\.bottlenecks\.(\d+)\.conv1\.", r".blocks.\1.square."),
    (r"\.bottlenecks\.(\d+)\.conv2\.", r".blocks.\1.point."),
    (r"^decoder\.input_proj\.", "decoder.project."),
    (r"^decoder\.enc_output\.", "decoder.selection."),
    (r"^decoder\.enc_score_head\.", "decoder.selection.score."),
    (r"^decoder\.enc_bbox_head\.", "decoder.selection.box."),
    (r"^decoder\.query_pos_head\.", "decoder.query_position."),
    (r"^decoder\.pre_bbox_head\.", "decoder.first_box."),
    (r"^decoder\.denoising_class_embed\.", "decoder.label_embedding."),
    (r"^decoder\.dec_score_head\.", "decoder.score."),
    (r"^decoder\.dec_bbox_head\.", "decoder.edges."),
    (r"^decoder\.decoder\.lqe_layers\.(\d+)\.reg_conf\.", r"decoder.quality.\1.mlp."),
    (r"^decoder\.decoder\.layers\.", "decoder.layers."),
    (r"^(decoder\.layers\.\d+)\.self_attn\.in_proj_", r"\1.attention.qkv."),
    (r"^(decoder\.layers\.\d+)\.self_attn\.out_proj\.", r"\1.attention.out."),
    (r"^(decoder\.layers\.\d+)\.cross_attn\.sampling_offsets\.", r"\1.sampling.offsets."),
    (r"^(decoder\.layers\.\d+)\.cross_attn\.attention_weights\.", r"\1.sampling.weights."),
    (r"^(decoder\.layers\.\d+)\.gateway\.", r"\1.gate."),
    (r"^(decoder\.layers\.\d+)\.linear1\.", r"\1.widen."),
    (r"^(decoder\.layers\.\d+)\.linear2\.", r"\1.narrow."),
    (r"^(decoder\.layers\.\d+)\.norm3\.", r"\1.norm2."),
)
