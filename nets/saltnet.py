"""SaltNet: a U-Net with object context in its decoders, a hypercolumn, and logits at every level and for the image.

The network of the 9th place in Kaggle's TGS salt identification challenge (2018), on any encoder of `nets.encoders`.
Parameters: 131,814,263 with SENet154, 30,640,199 with ResNet34.
"""

from torch import Tensor, nn

from nets import encoders
from nets.blocks import HEAD_DROPOUT, Head, Hypercolumn, Join, ObjectContext, conv3x3, decoder, plain_decoder
from nets.images import Normalise, check_counts, check_images
from nets.output import Output

MULTIPLE = 32  # pixels: the centre lies at 1/32 of the tile
FILTERS = 16  # the unit of all decoder widths


class SaltNet(nn.Module):
    """images (N, channels, H, W) in 0..1, H and W multiples of 32 -> Output with five level_logits and image_logits.

    The table's shapes, for SENet154 and a tile of 128 px:

    encoder1     128, 64 px    center    128,   8 px
    encoder2     256, 64 px    decoder5  128,  16 px
    encoder3     512, 32 px    decoder4   64,  32 px
    encoder4    1024, 16 px    decoder3   32,  64 px
    encoder5     512,  8 px    decoder2   16,  64 px (plain)    decoder1  16, 128 px

    Encoders without a pooling stem (VGG, timm) get a full decoder2 (16, 128 px) and a decoder1 of one convolution,
    whose skip is as large as the tile, or missing where the encoder has four maps.
    Raises BadInput for other sizes, an unknown encoder, or classes or channels below 1.
    """

    def __init__(self, encoder: str = "senet154", classes: int = 1, channels: int = 3) -> None:
        super().__init__()
        check_counts(classes=classes, channels=channels)
        f = FILTERS
        self.channels = channels
        self.encoder = encoders.build(encoder, channels)
        self.normalise = Normalise(channels, self.encoder.mean, self.encoder.std)

        *first, second, third, fourth, fifth = self.encoder.channels
        self.encoder5 = nn.Sequential(conv3x3(fifth, 32 * f), nn.BatchNorm2d(32 * f), ObjectContext(32 * f, 0.05))
        self.center = nn.Sequential(nn.MaxPool2d(2), decoder(32 * f, 16 * f, 8 * f))
        self.decoder5 = decoder(8 * f + 32 * f, 16 * f, 8 * f)
        self.decoder4 = decoder(8 * f + fourth, 16 * f, 4 * f)
        self.decoder3 = decoder(4 * f + third, 8 * f, 2 * f)
        if self.encoder.strides == encoders.STEM_STRIDES:
            self.decoder2 = plain_decoder(2 * f + second, 4 * f, f)
            self.decoder1 = decoder(f + sum(first), 2 * f, f)
        else:
            self.decoder2 = decoder(2 * f + second, 4 * f, f)
            self.decoder1 = Join(conv3x3(f + sum(first), f), nn.ReLU())

        widths = (f, f, 2 * f, 4 * f, 8 * f)  # of decoder1..5
        self.level_heads = nn.ModuleList(Head(width, f, classes) for width in widths)
        self.fuse_pixel = Hypercolumn(sum(widths), 4 * f)
        self.fuse_image = nn.Sequential(nn.Dropout(HEAD_DROPOUT), nn.Linear(32 * f, 2 * f), nn.ReLU())
        self.image_head = nn.Linear(2 * f, 1)
        self.head = Head(4 * f + 2 * f, f, classes)

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts whose activations are worth computing again (see nets.recompute)."""
        decoders = (self.center[1], self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.decoder1)
        return [*self.encoder.blocks, *decoders]

    def forward(self, images: Tensor) -> Output:
        check_images(images, self.channels, MULTIPLE)
        size = images.shape[-2:]

        *first, second, third, fourth, fifth = self.encoder(self.normalise(images))
        fifth = self.encoder5(fifth)
        center = self.center(fifth)
        decoded5 = self.decoder5(center, fifth)
        decoded4 = self.decoder4(decoded5, fourth)
        decoded3 = self.decoder3(decoded4, third)
        decoded2 = self.decoder2(decoded3, second)
        decoded1 = self.decoder1(decoded2, *first)

        levels = (decoded1, decoded2, decoded3, decoded4, decoded5)
        level_logits = tuple(head([level], size) for head, level in zip(self.level_heads, levels, strict=True))
        pixel = self.fuse_pixel(levels, size)
        image = self.fuse_image(fifth.mean(dim=(2, 3)))
        logits = self.head([pixel, image[:, :, None, None]], size)
        return Output(logits, level_logits, self.image_head(image).squeeze(1))
