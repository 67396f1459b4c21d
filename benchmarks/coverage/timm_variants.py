"""timm models for the coverage benchmark: one small variant of each architecture family, and its options."""

from typing import Any

SMALL: dict[str, Any] = {"img_size": 64}

# These take images of 64 pixels as they are.
PLAIN = """
gcresnext26ts lambda_resnet26t repvgg_a0 mobileone_s0 convmixer_768_32 convnext_atto convnextv2_atto
cs3darknet_s cspresnet50 darknet53 densenet121 dla34 dpn48b edgenext_xx_small efficientnet_lite0 efficientnet_b0
mobilenetv2_050 mnasnet_small mixnet_s efficientvit_b0 fasternet_t0 ghostnet_050 ghostnetv2_100 hardcorenas_a
hgnetv2_b0 hrnet_w18_small inception_next_atto lcnet_050 tinynet_e mobilenetv3_small_050 mambaout_femto
poolformer_s12 poolformerv2_s12 convformer_s18 caformer_s18 mobilevit_xxs mobilevitv2_050 nextvit_small nf_regnet_b0
nfnet_l0 pvt_v2_b0 rdnet_tiny regnetx_002 regnety_002 regnetz_b16 repghostnet_050 repvit_m0_9 res2net50_14w_8s
resnest14d resnet10t resnet18 seresnet18 ecaresnet26t resnext26ts resnetv2_50 rexnet_100 selecsls42
legacy_seresnet18 shvit_s1 skresnet18 starnet_s050 swiftformer_xs vgg11_bn ese_vovnet19b_dw xception41
focalnet_tiny_srf
"""

# name -> (arguments of timm.create_model, size of the image)
TIMM: dict[str, tuple[dict[str, Any], int]] = {
    **dict.fromkeys(PLAIN.split(), ({}, 64)),
    "botnet26t_256": ({}, 256),
    "inception_v3": ({}, 96),
    "inception_v4": ({}, 96),
    "inception_resnet_v2": ({}, 96),
    "efficientvit_m0": ({}, 224),
    "coat_lite_tiny": (SMALL, 64),
    "cait_xxs24_224": (SMALL, 64),
    "convit_tiny": (SMALL, 64),
    "crossvit_9_240": ({}, 240),
    "deit_tiny_distilled_patch16_224": (SMALL, 64),
    "deit3_small_patch16_224": (SMALL, 64),
    "beitv2_base_patch16_224": ({**SMALL, "embed_dim": 96, "depth": 3, "num_heads": 4}, 64),
    "eva02_tiny_patch14_224": ({"img_size": 56, "depth": 3}, 56),
    "davit_tiny": ({}, 64),
    "efficientformer_l1": ({}, 224),
    "efficientformerv2_s0": ({}, 224),
    "fastvit_t8": ({}, 64),
    "gcvit_xxtiny": (SMALL, 64),
    "hiera_tiny_224": (SMALL, 64),
    "levit_128s": ({}, 224),
    "coatnet_nano_rw_224": (SMALL, 64),
    "maxvit_nano_rw_256": (SMALL, 64),
    "mixer_s32_224": (SMALL, 64),
    "gmlp_ti16_224": (SMALL, 64),
    "resmlp_12_224": (SMALL, 64),
    "mvitv2_tiny": (SMALL, 64),
    "nest_tiny": (SMALL, 64),
    "pit_ti_224": (SMALL, 64),
    "sequencer2d_s": (SMALL, 64),
    "swin_tiny_patch4_window7_224": ({"img_size": 56, "depths": (2, 2), "num_heads": (3, 6)}, 56),
    "swinv2_cr_tiny_224": ({"img_size": 56, "depths": (2, 2), "num_heads": (3, 6)}, 56),
    "tiny_vit_5m_224": ({}, 224),
    "tnt_s_patch16_224": (SMALL, 64),
    "twins_svt_small": (SMALL, 64),
    "visformer_tiny": (SMALL, 64),
    "vit_tiny_patch16_224": (SMALL, 64),
    "vit_relpos_small_patch16_224": (SMALL, 64),
    "volo_d1_224": (SMALL, 64),
    "xcit_nano_12_p16_224": (SMALL, 64),
}
