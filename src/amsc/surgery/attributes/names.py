"""What libraries call the sizes that their modules store: names, never classes; the old value must fit as well."""

import re

__all__ = [
    "GROUPS",
    "HEADS",
    "HEAD_SIZES",
    "INNER_SIZES",
    "KEY_VALUE_HEADS",
    "KEY_VALUE_SIZES",
    "STREAM_SIZES",
    "VALUE_HEAD_SIZES",
    "VALUE_INNER_SIZES",
    "projection_role",
    "words",
]


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


HEADS = words(
    """num_heads num_attention_heads n_heads n_head nhead nheads heads num_head num_attn_heads num_query_heads
    num_q_heads n_query_heads n_q_heads attention_heads encoder_attention_heads decoder_attention_heads h num_v_heads"""
)
KEY_VALUE_HEADS = words(
    """num_key_value_heads num_kv_heads n_kv_heads n_head_kv kv_heads num_heads_kv n_kv_head num_kv kv_n_heads
    num_k_heads"""
)
GROUPS = words("num_key_value_groups num_kv_groups n_rep num_queries_per_kv q_per_kv kv_groups")

HEAD_SIZES = words(
    """head_dim head_size attention_head_size key_value_proj_dim d_kv d_k d_head dim_head dim_per_head dim_heads
    head_channels channels_per_head head_width qk_head_dim qk_dim dim_head_qk qk_channels_per_head key_dim head_k_dim
    d_key head_features"""
)
VALUE_HEAD_SIZES = words("v_head_dim head_v_dim dim_head_v val_dim v_channels_per_head d_v d_value v_dim")

# The width between the projections of an attention, of a gated or plain feed-forward layer, of a state space layer.
INNER_SIZES = words(
    """all_head_size inner_dim attn_dim attention_dim split_size inner_size intermediate_size intermediate_dim ffn_dim
    ff_dim d_ff d_inner n_inner ffn_hidden_size moe_intermediate_size shared_intermediate_size expert_dim expert_size
    hidden_features mlp_dim mlp_hidden_dim mlp_hidden_size expand_dim expand_chs conv_dim ssm_intermediate_size q_dim
    query_dim qk_out_channels dim_out_qk key_attn_dim out_dim_keys_values qkv_dim hidden_channels mid_channels
    bottleneck_dim rnn_dim lru_width encoder_ffn_dim decoder_ffn_dim feed_forward_size key_dim internal_dim dim_inner
    projection_size squeeze_channels"""
)
VALUE_INNER_SIZES = words("value_dim val_attn_dim v_out_channels out_dim_projection dim_out_v o_proj_inpdim")
KEY_VALUE_SIZES = words("kv_dim key_value_dim num_kv_channels kv_size")

# The width of what comes in or goes out.
STREAM_SIZES = words(
    """dim embed_dim embedding_dim hidden_size hidden_dim d_model model_dim width channels num_channels num_features
    in_channels out_channels in_features out_features in_dim out_dim dim_in dim_out input_dim output_dim input_size
    output_size nx nf n_embd emb_dim embed_dims normalized_shape num_parameters n_embed hidden_sizes in_chs out_chs
    num_embeddings num_positions kdim vdim d_embed features embedding_size bias_shape"""
)

_ROLES = {
    **dict.fromkeys(words("query queries q wq qs"), "q"),
    **dict.fromkeys(words("key keys k wk ks"), "k"),
    **dict.fromkeys(words("value values v wv vs"), "v"),
    **{fused: fused.removeprefix("w") for fused in ("qk", "kv", "qkv", "wqkv")},
}
_FUSED = frozenset(("c_attn", "in_proj_weight"))
_OUT = words(
    """o o_proj out_proj proj dense c_proj wo to_out out_lin out projection output fc_out output_proj linear_out"""
)
_NO_HEADS = re.compile(r"(^|_)a_proj|norm|lora|bias|embed|indexer")


def projection_role(path: str) -> str:
    """Which of query, key and value the projection at `path` computes ("q", "kv", "qkv", ...), "o" for the one behind
    the heads, "" for anything else.

        projection_role("self.query") == "q"; projection_role("attn.qkv.conv") == "qkv"
    """
    for part in reversed(path.split(".")):
        name = part.lower()
        if name in _FUSED:
            return "qkv"
        if name in _OUT:
            return "o"
        letters = {letter for token in re.split(r"[_\d]+", name) for letter in _ROLES.get(token, "")}
        if letters and not _NO_HEADS.search(name):
            return "".join(letter for letter in "qkv" if letter in letters)
    return ""
