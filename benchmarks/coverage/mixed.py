"""Audio, multimodal and time-series families of `transformers` for the coverage benchmark (see text.py)."""

from typing import Any

from text import BART, BERT, IDS
from vision import VIT

WAVE = {
    **IDS,
    "vocab_size": 31,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "conv_dim": [20, 24, 28],
    "conv_kernel": [6, 3, 3],
    "conv_stride": [4, 2, 2],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 5,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.0,
    "apply_spec_augment": False,
}
SPEECH = {**BART, "max_source_positions": 40, "max_target_positions": 40}
CLIP_TEXT = {**BERT, "projection_dim": 28}
CLIP_VISION = {**VIT, "projection_dim": 28}
CLIP = {"text_config": CLIP_TEXT, "vision_config": CLIP_VISION, "projection_dim": 28}
SERIES = {"prediction_length": 6, "context_length": 24, "d_model": 48, "num_input_channels": 3}

MIXED: dict[str, tuple[Any, ...]] = {
    # audio
    "whisper": (
        "WhisperForConditionalGeneration",
        {**SPEECH, "num_mel_bins": 10, "max_source_positions": 20},
        "speech:10x40",
    ),
    "whisper-classifier": (
        "WhisperForAudioClassification",
        {**SPEECH, "num_mel_bins": 10, "max_source_positions": 20},
        "mel:10x40",
    ),
    "speech-to-text": (
        "Speech2TextForConditionalGeneration",
        {
            **SPEECH,
            "input_feat_per_channel": 10,
            "num_conv_layers": 2,
            "conv_kernel_sizes": [3, 3],
            "conv_channels": 32,
        },
        "speech:40x10",
    ),
    "moonshine": (
        "MoonshineForConditionalGeneration",
        {
            **BERT,
            "encoder_num_hidden_layers": 3,
            "decoder_num_hidden_layers": 2,
            "encoder_num_attention_heads": 4,
            "decoder_num_attention_heads": 4,
            "use_cache": False,
        },
        "moonshine",
    ),
    "wav2vec2": ("Wav2Vec2ForCTC", WAVE, "wave:320"),
    "wav2vec2-layernorm": (
        "Wav2Vec2ForCTC",
        {**WAVE, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True},
        "wave:320",
    ),
    "wav2vec2-classifier": ("Wav2Vec2ForSequenceClassification", {**WAVE, "classifier_proj_size": 20}, "wave:320"),
    "hubert": ("HubertForCTC", WAVE, "wave:320"),
    "wavlm": ("WavLMForCTC", {**WAVE, "num_buckets": 10, "max_bucket_distance": 20}, "wave:320"),
    "unispeech": ("UniSpeechForCTC", {**WAVE, "num_ctc_classes": 31}, "wave:320"),
    "data2vec-audio": ("Data2VecAudioForCTC", {**WAVE, "conv_pos_kernel_size": 5}, "wave:320"),
    "sew": ("SEWForCTC", {**WAVE, "squeeze_factor": 2}, "wave:320"),
    "wav2vec2-conformer": ("Wav2Vec2ConformerForCTC", {**WAVE, "conv_depthwise_kernel_size": 5}, "wave:320"),
    "wav2vec2-bert": (
        "Wav2Vec2BertForCTC",
        {
            **WAVE,
            "feature_projection_input_dim": 14,
            "conv_depthwise_kernel_size": 5,
            "left_max_position_embeddings": 8,
        },
        "mel:17x14",
    ),
    "ast": (
        "ASTForAudioClassification",
        {**VIT, "max_length": 24, "num_mel_bins": 16, "patch_size": 8, "frequency_stride": 4, "time_stride": 4},
        "ast:24x16",
    ),
    "speecht5": (
        "SpeechT5ForSpeechToText",
        {**WAVE, **BART, "encoder_layerdrop": 0.0, "max_speech_positions": 40, "max_text_positions": 40},
        "seq2seq-wave:320",
    ),
    "encodec": (
        "EncodecModel",
        {"num_filters": 8, "hidden_size": 24, "codebook_size": 16, "codebook_dim": 24, "upsampling_ratios": [4, 2]},
        "encodec",
    ),
    # image and text
    "clip": ("CLIPModel", CLIP, "image-text:32"),
    "clip-vision": ("CLIPForImageClassification", CLIP, "image:32"),
    "siglip": ("SiglipModel", CLIP, "image-text:32"),
    "siglip-vision": ("SiglipForImageClassification", CLIP, "image:32"),
    "chinese-clip": ("ChineseCLIPModel", CLIP, "image-text:32"),
    "altclip": ("AltCLIPModel", {**CLIP, "text_config": {**BERT, "project_dim": 28}}, "image-text:32"),
    "blip": (
        "BlipForImageTextRetrieval",
        {**CLIP, "text_config": {**BERT, "encoder_hidden_size": 48, "bos_token_id": 1}, "image_text_hidden_size": 28},
        "image-text:32",
    ),
    "align": (
        "AlignModel",
        {
            "text_config": BERT,
            "vision_config": {"image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640},
            "projection_dim": 160,
        },
        "image-text:64",
    ),
    "groupvit": (
        "GroupViTModel",
        {
            "text_config": BERT,
            "vision_config": {**VIT, "depths": [2, 1], "num_group_tokens": [5, 0], "num_output_groups": [5, 3]},
            "projection_dim": 28,
            "projection_intermediate_dim": 36,
        },
        "image-text:32",
    ),
    "owlvit": ("OwlViTModel", CLIP, "image-text:32"),
    "vilt": ("ViltForQuestionAnswering", {**BERT, **VIT, "num_labels": 5}, "image-text:32"),
    "git": ("GitForCausalLM", {**BERT, "vision_config": VIT, "use_cache": False}, "image-text:32"),
    "lxmert": (
        "LxmertModel",
        {**BERT, "l_layers": 2, "x_layers": 1, "r_layers": 1, "visual_feat_dim": 22, "visual_pos_dim": 4},
        "lxmert",
    ),
    "flava": (
        "FlavaModel",
        {
            "text_config": BERT,
            "image_config": VIT,
            "multimodal_config": {k: v for k, v in VIT.items() if k not in ("image_size", "patch_size")},
            "hidden_size": 48,
            "projection_dim": 28,
        },
        "image-text:32",
    ),
    # time series
    "patchtst": (
        "PatchTSTForPrediction",
        {
            **SERIES,
            "patch_length": 4,
            "patch_stride": 4,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 96,
        },
        "series:24x3",
    ),
    "patchtsmixer": (
        "PatchTSMixerForPrediction",
        {**SERIES, "patch_length": 4, "patch_stride": 4, "num_layers": 3},
        "series:24x3",
    ),
    "decision-transformer": (
        "DecisionTransformerModel",
        {"state_dim": 9, "act_dim": 4, "hidden_size": 48, "n_layer": 3, "n_head": 4, "max_ep_len": 30},
        "decision",
    ),
    "time-series-transformer": (
        "TimeSeriesTransformerForPrediction",
        {**BART, "prediction_length": 6, "context_length": 12, "lags_sequence": [1, 2, 3], "num_time_features": 2},
        "forecast",
    ),
}
