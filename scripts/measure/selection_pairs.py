# SPDX-License-Identifier: Apache-2.0
"""The pairs of networks that the survey of weight selection plans and checks.

A row names a large network and smaller ones: with fewer channels, with fewer blocks, or a smaller model of the family.
"""

from __future__ import annotations

from typing import Any

# large network, its options, {kind: options of it that make it small}, smaller models of the family, made with its
# options too
Row = tuple[str, dict[str, Any], dict[str, dict[str, Any]], tuple[str, ...]]


def row(large: str, *siblings: str, narrower: Any = None, shallower: Any = None, **own: Any) -> Row:
    """A row; ``own`` are options that keep the networks quick, or of one image size."""
    options = {"narrower": narrower, "shallower": shallower}
    return large, own, {kind: value for kind, value in options.items() if value}, siblings


HALF = {"channels": (32, 64, 128, 256), "stem_width": 32}
BLOCKS = {"layers": (1, 2, 2, 1)}
DIMS = {"dims": (48, 96, 192, 384)}
DEPTHS = {"depths": (2, 2, 3, 2)}
VIT = {"embed_dim": 192, "num_heads": 3}
SHALLOW = {"depth": 6}
BIT = {"layers": (2, 2, 2, 2), "stem_chs": 64}

TIMM = [
    row("resnet34", "resnet18", shallower=BLOCKS),
    row("resnet50", "resnet26", narrower=HALF, shallower=BLOCKS),
    row("resnet50d", "resnet26d", narrower={"channels": (32, 64, 128, 256), "stem_width": 16}),
    row("wide_resnet50_2", "resnet50", narrower=HALF),
    row("resnext50_32x4d", "resnext26ts", narrower=HALF, shallower=BLOCKS),
    row("seresnet50", narrower=HALF, shallower=BLOCKS),
    row("seresnext50_32x4d", narrower=HALF, shallower=BLOCKS),
    row("ecaresnet50t", "ecaresnet26t"),
    row("skresnet34", "skresnet18", narrower=HALF),
    row("resnest26d", "resnest14d"),
    row("res2net50_26w_4s", narrower=HALF, shallower=BLOCKS),
    row("resnetv2_50", narrower=BIT | {"channels": (128, 256, 512, 1024), "stem_chs": 32}, shallower=BIT),
    row("nf_resnet50", "nf_resnet26"),
    row("nf_regnet_b1", "nf_regnet_b0"),
    row("eca_nfnet_l1", "eca_nfnet_l0"),
    row("densenet169", "densenet121", narrower={"growth_rate": 16}, shallower={"block_config": (4, 8, 12, 8)}),
    row("densenet121", narrower={"growth_rate": 12}, shallower={"block_config": (6, 12)}),
    row("rdnet_small", "rdnet_tiny"),
    row("dpn68", "dpn68b"),
    row("dla102", "dla60"),
    row("hrnet_w18_small_v2", "hrnet_w18_small"),
    row("vgg13_bn", "vgg11_bn"),
    row("regnetx_008", "regnetx_004", "regnetx_002"),
    row("regnety_008", "regnety_004", "regnety_002"),
    row("regnetz_c16", "regnetz_b16"),
    row("repvgg_b0", "repvgg_a0"),
    row("mobileone_s1", "mobileone_s0"),
    row("gernet_m", "gernet_s"),
    row("cs3darknet_m", "cs3darknet_s"),
    row("cspresnet50", "cspresnext50"),
    row("ese_vovnet39b", "ese_vovnet19b_dw"),
    row("selecsls60", "selecsls42b"),
    row("hgnet_small", "hgnet_tiny"),
    row("hgnetv2_b2", "hgnetv2_b1", "hgnetv2_b0"),
    row("efficientnet_b2", "efficientnet_b1", "efficientnet_b0", shallower={"depths": [1, 2, 2, 2, 2, 2, 1]}),
    row("tf_efficientnet_lite2", "tf_efficientnet_lite0", narrower={"width": 0.5},
        shallower={"depths": [1, 3, 3, 2, 1, 1]}),
    row("tf_efficientnetv2_s", shallower={"depths": [1, 2, 2, 3, 4, 6]}),
    row("tf_efficientnetv2_b2", "tf_efficientnetv2_b0"),
    row("mixnet_l", "mixnet_m", "mixnet_s"),
    row("mobilenetv1_125", "mobilenetv1_100"),
    row("mobilenetv2_140", "mobilenetv2_100", "mobilenetv2_050"),
    row("mobilenetv2_120d", "mobilenetv2_110d"),
    row("mobilenetv3_large_100", "mobilenetv3_large_075", "mobilenetv3_small_100"),
    row("mobilenetv3_small_100", "mobilenetv3_small_075", "mobilenetv3_small_050"),
    row("mobilenetv4_conv_medium", "mobilenetv4_conv_small"),
    row("mobilenetv4_hybrid_medium", "mobilenetv4_conv_medium"),
    row("mnasnet_100", "mnasnet_075", "mnasnet_050"),
    row("semnasnet_100", "semnasnet_075"),
    row("fbnetv3_d", "fbnetv3_b"),
    row("hardcorenas_c", "hardcorenas_a"),
    row("lcnet_100", "lcnet_075", "lcnet_050"),
    row("tinynet_a", "tinynet_b", "tinynet_c"),
    row("rexnet_130", "rexnet_100"),
    row("ghostnet_100", "ghostnet_050"),
    row("ghostnetv2_130", "ghostnetv2_100"),
    row("repghostnet_100", "repghostnet_050"),
    row("repvit_m1", "repvit_m0_9"),
    row("starnet_s2", "starnet_s1"),
    row("fasternet_t1", "fasternet_t0"),
    row("shvit_s2", "shvit_s1"),
    row("convnext_tiny", "convnext_nano", "convnext_pico", narrower=DIMS, shallower=DEPTHS),
    row("convnextv2_tiny", "convnextv2_nano", narrower=DIMS, shallower=DEPTHS),
    row("inception_next_small", "inception_next_tiny", narrower=DIMS),
    row("edgenext_small", "edgenext_x_small", "edgenext_xx_small"),
    row("mambaout_tiny", "mambaout_kobe", "mambaout_femto"),
    row("poolformer_s24", "poolformer_s12"),
    row("caformer_s36", "caformer_s18"),
    row("vit_small_patch16_224", "vit_tiny_patch16_224", narrower=VIT, shallower=SHALLOW),
    row("vit_base_patch16_224", "vit_small_patch16_224", "vit_tiny_patch16_224", img_size=64),
    row("deit_small_distilled_patch16_224", "deit_tiny_distilled_patch16_224", shallower=SHALLOW),
    row("deit3_small_patch16_224", narrower=VIT, shallower=SHALLOW),
    row("vit_small_patch14_reg4_dinov2", narrower=VIT, shallower=SHALLOW, img_size=56),
    row("vit_small_patch16_dinov3", narrower=VIT, shallower=SHALLOW, img_size=64),
    row("vit_base_patch16_siglip_224", narrower=VIT, shallower=SHALLOW, img_size=64),
    row("vit_relpos_small_patch16_224", narrower=VIT, shallower=SHALLOW, img_size=64),
    row("vit_small_r26_s32_224", narrower=VIT, shallower=SHALLOW),
    row("beit_base_patch16_224", narrower=VIT, shallower=SHALLOW, img_size=64),
    row("beitv2_base_patch16_224", narrower=VIT, shallower=SHALLOW, img_size=64),
    row("eva02_small_patch14_224", "eva02_tiny_patch14_224", narrower=VIT, shallower=SHALLOW, img_size=56),
    row("vit_small_patch16_rope_224", narrower=VIT, shallower=SHALLOW, img_size=64),
    row("aimv2_large_patch14_224", narrower=VIT, shallower=SHALLOW, img_size=56),
    row("cait_xxs24_224", narrower={"embed_dim": 96, "num_heads": 2}, shallower=SHALLOW),
    row("xcit_tiny_12_p16_224", "xcit_nano_12_p16_224", narrower={"embed_dim": 96, "num_heads": 2}, shallower=SHALLOW),
    row("swin_small_patch4_window7_224", "swin_tiny_patch4_window7_224",
        narrower={"embed_dim": 48, "num_heads": (1, 3, 6, 12)}, img_size=56),
    row("swinv2_small_window8_256", "swinv2_tiny_window8_256",
        narrower={"embed_dim": 48, "num_heads": (1, 3, 6, 12)}, img_size=64),
    row("swinv2_cr_small_224", "swinv2_cr_tiny_224", img_size=224),
    row("swin_s3_small_224", "swin_s3_tiny_224"),
    row("hiera_small_224", "hiera_tiny_224", narrower={"embed_dim": 48}),
    row("mvitv2_small", "mvitv2_tiny"),
    row("maxvit_tiny_rw_256", "maxvit_nano_rw_256"),
    row("coatnet_1_rw_224", "coatnet_0_rw_224"),
    row("maxvit_rmlp_nano_rw_256", "maxvit_rmlp_pico_rw_256"),
    row("fastvit_t12", "fastvit_t8"),
    row("fastvit_s12", "fastvit_t12"),
    row("efficientformer_l3", "efficientformer_l1"),
    row("efficientformerv2_s1", "efficientformerv2_s0"),
    row("mobilevit_s", "mobilevit_xs", "mobilevit_xxs"),
    row("mobilevitv2_100", "mobilevitv2_075", "mobilevitv2_050"),
    row("levit_192", "levit_128", "levit_128s"),
    row("pit_s_224", "pit_xs_224", "pit_ti_224"),
    row("pvt_v2_b2", "pvt_v2_b1", "pvt_v2_b0"),
    row("twins_svt_small", narrower={"embed_dims": (32, 64, 128, 256), "num_heads": (1, 2, 4, 8)}),
    row("twins_pcpvt_base", "twins_pcpvt_small"),
    row("crossvit_9_240", "crossvit_tiny_240"),
    row("coat_mini", "coat_tiny", "coat_lite_tiny"),
    row("convit_small", "convit_tiny"),
    row("gcvit_tiny", "gcvit_xtiny", "gcvit_xxtiny"),
    row("nextvit_base", "nextvit_small"),
    row("focalnet_small_srf", "focalnet_tiny_srf"),
    row("davit_small", "davit_tiny", narrower={"embed_dims": (48, 96, 192, 384), "num_heads": (2, 3, 6, 12)}),
    row("sequencer2d_m", "sequencer2d_s"),
    row("gmlp_s16_224", "gmlp_ti16_224"),
    row("resmlp_24_224", "resmlp_12_224"),
    row("visformer_small", "visformer_tiny"),
    row("nest_small", "nest_tiny"),
    row("efficientvit_b1", "efficientvit_b0"),
    row("efficientvit_m2", "efficientvit_m1", "efficientvit_m0"),
    row("swiftformer_s", "swiftformer_xs"),
    row("tiny_vit_11m_224", "tiny_vit_5m_224"),
    row("tnt_s_patch16_224", narrower={"embed_dim": 192, "num_heads_outer": 3}, shallower=SHALLOW),
]  # fmt: skip

DENSE = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
RES = {"spatial_dims": 3, "n_input_channels": 1, "num_classes": 2}
SE = {"spatial_dims": 2, "in_channels": 3, "num_classes": 2}
BN = {"spatial_dims": 2, "in_channels": 3, "num_classes": 2, "pretrained": False}
MONAI_VIT = {"in_channels": 1, "img_size": (32, 32, 32), "patch_size": (8, 8, 8), "hidden_size": 192, "mlp_dim": 384,
             "num_heads": 6, "num_layers": 4, "classification": True}  # fmt: skip
MONAI = [
    row("DenseNet169", "DenseNet121", narrower={"growth_rate": 16}, **DENSE),
    row("DenseNet121", narrower={"growth_rate": 12}, shallower={"block_config": (4, 6, 8, 6)}, **DENSE),
    row("DenseNet121", narrower={"growth_rate": 16, "init_features": 32}, shallower={"block_config": (6, 12)},
        **DENSE | {"spatial_dims": 3}),
    row("resnet50", narrower={"widen_factor": 0.5}, **RES | {"spatial_dims": 2}),
    row("resnet34", "resnet18", narrower={"widen_factor": 0.5}, **RES),
    row("resnet18", "resnet10", shortcut_type="A", **RES),
    row("SEResNet101", "SEResNet50", **SE),
    row("SEResNext101", "SEResNext50", **SE),
    row("EfficientNetBN", narrower={"model_name": "efficientnet-b0"}, model_name="efficientnet-b1", **BN),
    row("EfficientNetBN", narrower={"model_name": "efficientnet-b2"}, model_name="efficientnet-b4", **BN),
    row("ViT", narrower={"hidden_size": 96, "num_heads": 3}, shallower={"num_layers": 2}, **MONAI_VIT),
    row("SegResNet", narrower={"init_filters": 16}, shallower={"blocks_down": (1, 1, 2, 2)}, spatial_dims=3,
        init_filters=32),
    row("SegResNetDS2", narrower={"init_filters": 16}, spatial_dims=3, init_filters=32),
    row("UNet", narrower={"channels": (8, 16, 32)}, spatial_dims=2, in_channels=1, out_channels=2,
        channels=(16, 32, 64), strides=(2, 2), num_res_units=2),
    row("UNETR", narrower={"feature_size": 8}, in_channels=1, out_channels=2, img_size=32, feature_size=16),
    row("SwinUNETR", narrower={"feature_size": 12}, in_channels=1, out_channels=2, feature_size=24),
]  # fmt: skip

TORCHVISION = [
    row("resnet50", narrower={"width_per_group": 32}),
    row("resnet34", "resnet18"),
    row("densenet169", "densenet121"),
    row("efficientnet_b1", "efficientnet_b0"),
    row("efficientnet_v2_s", narrower={"dropout": 0.1}),
    row("convnext_small", "convnext_tiny"),
    row("swin_s", "swin_t"),
    row("swin_v2_s", "swin_v2_t"),
    row("regnet_y_800mf", "regnet_y_400mf"),
    row("mobilenet_v2", narrower={"width_mult": 0.5}),
    row("mobilenet_v3_large", narrower={"width_mult": 0.5}),
    row("mnasnet1_0", "mnasnet0_5"),
    row("shufflenet_v2_x1_5", "shufflenet_v2_x1_0"),
    row("vgg13_bn", "vgg11_bn"),
]
